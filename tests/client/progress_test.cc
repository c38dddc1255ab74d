#include "client/progress.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "core/base/unique_fd.h"
#include "tests/support/manual_clock.h"

namespace superlifter::client {
namespace {

using tests::ManualClock;

constexpr uint64_t kMiBytes = 1 << 20;

// What a renderer wrote, write by write.
struct Recorder {
  std::vector<std::string> writes;
  size_t columns = 80;

  WriteText sink() {
    return [this](std::string_view text) { writes.emplace_back(text); };
  }
  TerminalColumns width() {
    return [this] { return columns; };
  }
  std::string all() const {
    std::string out;
    for (const std::string& text : writes)
      out += text;
    return out;
  }
};

TEST(Progress, CountsAPhaseFromZero) {
  ManualClock clock;
  Recorder recorder;
  Progress progress(clock, make_quiet_renderer(recorder.sink()));
  progress.start(ProgressPhase::kListing);
  progress.add(100, 5);
  progress.start(ProgressPhase::kTransferring, {.bytes = 1'000, .files = 10});
  progress.add(30, 1);
  progress.skip(70, 2);
  progress.set_current("a\nb");
  const ProgressSnapshot snapshot = progress.snapshot();
  EXPECT_EQ(snapshot.phase, ProgressPhase::kTransferring);
  EXPECT_EQ(snapshot.done.bytes, 100U);
  EXPECT_EQ(snapshot.done.files, 3U);
  EXPECT_EQ(snapshot.total.bytes, 1'000U);
  EXPECT_EQ(snapshot.total.files, 10U);
  EXPECT_EQ(snapshot.current, "a\\x0ab");
}

TEST(Progress, RateAndEtaComeFromWhatWasTransferred) {
  ManualClock clock;
  Recorder recorder;
  Progress progress(clock, make_quiet_renderer(recorder.sink()));
  progress.start(ProgressPhase::kTransferring, {.bytes = 100 * kMiBytes, .files = 100});
  EXPECT_FALSE(progress.snapshot().eta_s.has_value());  // No rate yet.
  progress.skip(50 * kMiBytes, 50);                     // No rate from what was there already.
  for (int i = 0; i < 20; ++i) {
    progress.add(kMiBytes, 1);
    clock.advance_ms(100);
    progress.tick();
  }
  const ProgressSnapshot snapshot = progress.snapshot();
  EXPECT_EQ(snapshot.rate_bytes_per_s, 10 * kMiBytes);
  EXPECT_EQ(snapshot.eta_s, 3U);  // 30 MiB left.
  EXPECT_EQ(snapshot.elapsed_ms, 2'000U);
}

TEST(Progress, EtaIsRoundedUpAndZeroAtTheEnd) {
  ManualClock clock;
  Recorder recorder;
  Progress progress(clock, make_quiet_renderer(recorder.sink()));
  progress.start(ProgressPhase::kTransferring, {.bytes = 2'001, .files = 0});
  progress.add(1'000, 0);
  clock.advance_ms(1'000);
  EXPECT_EQ(progress.snapshot().eta_s, 2U);
  progress.add(1'001, 0);
  EXPECT_EQ(progress.snapshot().eta_s, 0U);
  progress.add(5, 0);  // More than announced: a file that grew.
  EXPECT_EQ(progress.snapshot().eta_s, 0U);
}

TEST(Progress, RateForgetsWhatIsOlderThanTheWindow) {
  ManualClock clock;
  Recorder recorder;
  Progress progress(clock, make_quiet_renderer(recorder.sink()));
  progress.start(ProgressPhase::kTransferring, {.bytes = 1'000 * kMiBytes, .files = 0});
  for (int i = 0; i < 100; ++i) {
    progress.add(kMiBytes, 0);
    clock.advance_ms(100);
    progress.tick();
  }
  EXPECT_EQ(progress.snapshot().rate_bytes_per_s, 10 * kMiBytes);
  for (int i = 0; i < 60; ++i) {  // A stall of six seconds.
    clock.advance_ms(100);
    progress.tick();
  }
  EXPECT_EQ(progress.snapshot().rate_bytes_per_s, 0U);
  EXPECT_FALSE(progress.snapshot().eta_s.has_value());
}

TEST(Progress, ShowsAtMostTenTimesASecondOnATerminal) {
  ManualClock clock;
  Recorder recorder;
  Progress progress(clock, make_tty_renderer(recorder.sink(), recorder.width()));
  progress.start(ProgressPhase::kTransferring, {.bytes = 100'000, .files = 1'000});
  for (int i = 0; i < 1'000; ++i) {
    progress.add(100, 1);
    progress.tick();
    clock.advance_ms(1);
  }
  EXPECT_LE(recorder.writes.size(), 10U);
  EXPECT_GE(recorder.writes.size(), 9U);
  for (const std::string& text : recorder.writes) {
    EXPECT_TRUE(text.starts_with("\rtransferring") && text.ends_with("\x1b[K"));
    EXPECT_EQ(text.find('\n'), std::string::npos);
  }
}

TEST(Progress, TerminalLineIsClearedAndOneSummaryStays) {
  ManualClock clock;
  Recorder recorder;
  {
    Progress progress(clock, make_tty_renderer(recorder.sink(), recorder.width()));
    progress.start(ProgressPhase::kListing);
    progress.add(0, 12);
    clock.advance_ms(100);
    progress.tick();
    progress.note("warning");
    clock.advance_ms(100);
    progress.tick();  // Nothing changed: nothing is drawn.
    progress.finish("summary");
    progress.finish("again");
    clock.advance_ms(1'000);
    progress.tick();
  }
  EXPECT_EQ(recorder.all(),
            "\rlisting  12 entries\x1b[K"
            "\r\x1b[Kwarning\nlisting  12 entries"
            "\r\x1b[Ksummary\n");
}

TEST(Progress, TerminalThatShowedNothingIsNotCleared) {
  ManualClock clock;
  Recorder recorder;
  {
    Progress progress(clock, make_tty_renderer(recorder.sink(), recorder.width()));
    progress.finish("summary");
  }
  EXPECT_EQ(recorder.all(), "summary\n");
}

TEST(Progress, DestructorTakesTheDisplayAway) {
  ManualClock clock;
  Recorder recorder;
  {
    Progress progress(clock, make_tty_renderer(recorder.sink(), recorder.width()));
    clock.advance_ms(100);
    progress.tick();
  }
  EXPECT_EQ(recorder.all(), "\rconnecting\x1b[K\r\x1b[K");
}

TEST(Progress, PlainPrintsALineEveryInterval) {
  ManualClock clock;
  Recorder recorder;
  Progress progress(clock, make_plain_renderer(recorder.sink(), 5'000, PhaseLines::kNo));
  progress.start(ProgressPhase::kTransferring, {.bytes = 100 * kMiBytes, .files = 100});
  for (int i = 0; i < 110; ++i) {
    clock.advance_ms(100);
    progress.add(kMiBytes / 10, 0);
    progress.tick();
  }
  ASSERT_EQ(recorder.writes.size(), 2U);
  EXPECT_EQ(recorder.writes[0],
            "transferring: 4%, 4.99 MiB of 100 MiB, 0 of 100 files, 1023 KiB/s, 1:37 left\n");
  progress.note("n");
  progress.finish("summary");
  EXPECT_EQ(recorder.writes[2] + recorder.writes[3], "n\nsummary\n");
}

TEST(Progress, PlainSaysWhenAPhaseBeginsIfAskedTo) {
  ManualClock clock;
  Recorder recorder;
  Progress progress(clock, make_plain_renderer(recorder.sink(), 5'000, PhaseLines::kYes));
  progress.start(ProgressPhase::kListing);
  progress.tick();
  progress.tick();
  progress.start(ProgressPhase::kDeleting, {.bytes = 0, .files = 7});
  progress.tick();
  EXPECT_EQ(recorder.all(), "listing\ndeleting: 0 of 7 entries\n");
}

TEST(Progress, QuietPrintsNotesOnly) {
  ManualClock clock;
  Recorder recorder;
  {
    Progress progress(clock, make_quiet_renderer(recorder.sink()));
    clock.advance_ms(1'000'000);
    progress.tick();
    progress.note("error");
    progress.finish("summary");
  }
  EXPECT_EQ(recorder.all(), "error\n");
}

// What is there to read, without waiting.
std::string drain(int fd) {
  std::string out(4096, '\0');
  const ssize_t count = read(fd, out.data(), out.size());
  out.resize(count > 0 ? static_cast<size_t>(count) : 0);
  return out;
}

// A terminal of 40 columns: what is written to `terminal` is read from `screen`.
struct PseudoTerminal {
  UniqueFd screen{posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK)};
  UniqueFd terminal;

  PseudoTerminal() {
    EXPECT_EQ(grantpt(screen.get()), 0);
    EXPECT_EQ(unlockpt(screen.get()), 0);
    terminal = UniqueFd(open(ptsname(screen.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
    EXPECT_TRUE(terminal.valid());
    termios mode{};
    EXPECT_EQ(tcgetattr(terminal.get(), &mode), 0);
    cfmakeraw(&mode);
    EXPECT_EQ(tcsetattr(terminal.get(), TCSANOW, &mode), 0);
    set_columns(40);
  }
  void set_columns(uint16_t columns) const {
    const winsize size{.ws_row = 24, .ws_col = columns, .ws_xpixel = 0, .ws_ypixel = 0};
    EXPECT_EQ(ioctl(terminal.get(), TIOCSWINSZ, &size), 0);
  }
};

ProgressSnapshot transferring();

TEST(Progress, TerminalIsRecognizedAndItsWidthIsFollowed) {
  const PseudoTerminal pty;
  ASSERT_EQ(setenv("TERM", "xterm", 1), 0);
  const auto renderer = make_renderer(Output::kAuto, pty.terminal.get());
  renderer->show(transferring());
  EXPECT_EQ(drain(pty.screen.get()), "\r" + render_line(transferring(), 39) + "\x1b[K");
  pty.set_columns(120);
  renderer->show(transferring());
  EXPECT_EQ(drain(pty.screen.get()), "\r" + render_line(transferring(), 119) + "\x1b[K");
  pty.set_columns(0);  // A serial console that does not know: 80.
  renderer->show(transferring());
  EXPECT_EQ(drain(pty.screen.get()), "\r" + render_line(transferring(), 79) + "\x1b[K");
  renderer->finish("done");
  EXPECT_EQ(drain(pty.screen.get()), "\r\x1b[Kdone\n");
}

TEST(Progress, DumbTerminalsPipesAndQuietGetNoEscapes) {
  const PseudoTerminal pty;
  ASSERT_EQ(setenv("TERM", "dumb", 1), 0);
  make_renderer(Output::kAuto, pty.terminal.get())->show(transferring());
  const std::string plain = drain(pty.screen.get());
  EXPECT_TRUE(plain.starts_with("transferring: 42%")) << plain;
  ASSERT_EQ(setenv("TERM", "xterm", 1), 0);
  make_renderer(Output::kQuiet, pty.terminal.get())->show(transferring());
  EXPECT_EQ(drain(pty.screen.get()), "");

  int ends[2] = {-1, -1};
  ASSERT_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  const UniqueFd out(ends[0]);
  UniqueFd in(ends[1]);
  for (const Output output : {Output::kAuto, Output::kProgress}) {
    const auto renderer = make_renderer(output, in.get());
    EXPECT_EQ(renderer->shows_phase_change(), output == Output::kProgress);
    renderer->show(transferring());
    EXPECT_EQ(drain(out.get()), plain);
  }
}

ProgressSnapshot transferring() {
  ProgressSnapshot snapshot;
  snapshot.phase = ProgressPhase::kTransferring;
  snapshot.done = {.bytes = 42 * kMiBytes, .files = 12'345};
  snapshot.total = {.bytes = 100 * kMiBytes, .files = 79'001};
  snapshot.rate_bytes_per_s = 12 * kMiBytes;
  snapshot.eta_s = 83;
  snapshot.current = "drivers/gpu/drm/amd/include/asic_reg/nbio/nbio_7_2_0_sh_mask.h";
  return snapshot;
}

TEST(Progress, LineHoldsWhatMatters) {
  EXPECT_EQ(render_line(transferring(), 80),
            "transferring   42%  42.0 MiB / 100 MiB  12.0 MiB/s  ETA 1:23");
  EXPECT_EQ(render_line(transferring(), 109),
            "transferring   42%  42.0 MiB / 100 MiB  12.0 MiB/s  ETA 1:23  12,345 / 79,001 files"
            "  .../nbio_7_2_0_sh_mask.h");
  EXPECT_EQ(render_line(transferring(), 150),
            "transferring   42%  [########............]  42.0 MiB / 100 MiB  12.0 MiB/s  ETA 1:23"
            "  12,345 / 79,001 files  ...ude/asic_reg/nbio/nbio_7_2_0_sh_mask.h");
}

TEST(Progress, PercentIsHundredOnlyAtTheEnd) {
  ProgressSnapshot snapshot = transferring();
  snapshot.total.bytes = UINT64_MAX;
  snapshot.done.bytes = UINT64_MAX - 1;
  EXPECT_NE(render_line(snapshot, 80).find(" 99%"), std::string::npos);
  snapshot.done.bytes = UINT64_MAX;
  EXPECT_NE(render_line(snapshot, 80).find(" 99%"), std::string::npos) << "files are left";
  snapshot.done.files = snapshot.total.files;
  EXPECT_NE(render_line(snapshot, 80).find("100%"), std::string::npos);
}

TEST(Progress, EtaOfManyTinyFilesFollowsTheirNumber) {
  ManualClock clock;
  Recorder recorder;
  Progress progress(clock, make_quiet_renderer(recorder.sink()));
  progress.start(ProgressPhase::kTransferring, {.bytes = 10'000, .files = 10'000});
  progress.add(10'000, 1'000);  // Every byte came; most files are not in place yet.
  clock.advance_ms(1'000);
  EXPECT_GE(progress.snapshot().eta_s, 8U);
  EXPECT_LE(progress.snapshot().eta_s, 9U);
}

TEST(Progress, LineIsNeverWiderThanTheTerminal) {
  ProgressSnapshot snapshot = transferring();
  for (const std::string_view name : {"a/b", "日本語/日本語/日本語/日本語/日本語.txt",
                                      "e\xcc\x81\xcc\x81/x\xcc\x81", "\\xff\\x0a", ""}) {
    snapshot.current = std::string(name);
    for (const uint64_t total : {uint64_t{0}, 100 * kMiBytes}) {
      snapshot.total.bytes = total;
      for (size_t columns = 0; columns < 200; ++columns) {
        const std::string line = render_line(snapshot, columns);
        ASSERT_LE(display_columns(line), columns) << line;
        ASSERT_EQ(line.find_first_of("\r\n\x1b"), std::string::npos);
      }
    }
  }
}

TEST(Progress, ColumnsCountWideAndZeroWidthCharacters) {
  EXPECT_EQ(display_columns(""), 0U);
  EXPECT_EQ(display_columns("abc"), 3U);
  EXPECT_EQ(display_columns("Größe"), 5U);
  EXPECT_EQ(display_columns("日本"), 4U);
  EXPECT_EQ(display_columns("e\xcc\x81"), 1U);
  EXPECT_EQ(display_columns("\U0001F600"), 2U);
  EXPECT_EQ(display_columns("\xff\xe6"), 2U);  // Malformed: a column a byte.
}

TEST(Progress, FitKeepsTheTailAndWholeCharacters) {
  EXPECT_EQ(fit_tail("abcdef", 6), "abcdef");
  EXPECT_EQ(fit_tail("abcdefg", 6), "...efg");
  EXPECT_EQ(fit_tail("日本語", 6), "日本語");
  EXPECT_EQ(fit_tail("日本語x", 6), "...語x");
  EXPECT_EQ(fit_tail("日本語", 5), "...語");
  EXPECT_EQ(fit_tail("日本語", 4), "...");  // Half a character is none.
  EXPECT_EQ(fit_tail("abcde\xcc\x81xy", 6), "...e\xcc\x81xy");
  EXPECT_EQ(fit_tail("abcde\xcc\x81xy", 5), "...xy");  // A mark does not stay without its letter.
  EXPECT_EQ(fit_tail("abcdef", 3), "...");
  EXPECT_EQ(fit_tail("abcdef", 2), "..");
  EXPECT_EQ(fit_tail("abcdef", 0), "");
}

TEST(Progress, MayBeFedByManyThreads) {
  SystemClock clock;
  Recorder recorder;
  Progress progress(clock, make_tty_renderer(recorder.sink(), recorder.width()));
  progress.start(ProgressPhase::kTransferring, {.bytes = 4'000'000, .files = 40'000});
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&progress, i] {
      for (int n = 0; n < 10'000; ++n) {
        progress.add(100, 1);
        progress.set_current("name");
        if (n % 1'000 == 0) progress.note("note " + std::to_string(i));
      }
    });
  }
  for (int n = 0; n < 1'000; ++n)
    progress.tick();
  for (std::thread& thread : threads)
    thread.join();
  EXPECT_EQ(progress.snapshot().done.bytes, 4'000'000U);
  EXPECT_EQ(progress.snapshot().done.files, 40'000U);
}

}  // namespace
}  // namespace superlifter::client
