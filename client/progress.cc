#include "client/progress.h"

#include <fmt/format.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <optional>
#include <utility>

#include "client/units.h"
#include "core/base/escape.h"

namespace superlifter::client {
namespace {

// The rate is that of the last five seconds: long enough to be calm, short enough to notice a
// stall.
constexpr uint64_t kWindowMs = 5'000;
constexpr uint64_t kSampleMs = 200;
constexpr size_t kMaxSamples = kWindowMs / kSampleMs + 2;

constexpr uint64_t kTtyIntervalMs = 100;
constexpr uint64_t kPlainIntervalMs = 5'000;
constexpr uint64_t kPlainProgressIntervalMs = 2'000;

constexpr size_t kDefaultColumns = 80;
constexpr size_t kMaxColumns = 1'000;  // A terminal that claims more is not believed.
constexpr size_t kBarColumns = 20;
constexpr size_t kColumnsForBar = 110;  // Narrower, the name needs the room more.
constexpr size_t kMinNameColumns = 12;  // Less of a name says nothing.

struct CodeRange {
  uint32_t first = 0;
  uint32_t last = 0;
};

// East Asian wide and full-width characters and emoji (Unicode 15, EastAsianWidth.txt, in coarse
// ranges). Where terminals disagree the range is taken as wide: a line too short does no harm.
constexpr std::array<CodeRange, 20> kWide = {{
    {0x1100, 0x115F},   {0x231A, 0x23FF},   {0x2600, 0x27BF},   {0x2B00, 0x2BFF},
    {0x2E80, 0x303E},   {0x3041, 0x4DBF},   {0x4E00, 0xA4CF},   {0xA960, 0xA97F},
    {0xAC00, 0xD7A3},   {0xF900, 0xFAFF},   {0xFE10, 0xFE19},   {0xFE30, 0xFE6F},
    {0xFF00, 0xFF60},   {0xFFE0, 0xFFE6},   {0x16FE0, 0x18AFF}, {0x1B000, 0x1B2FF},
    {0x1F000, 0x1F2FF}, {0x1F300, 0x1F9FF}, {0x1FA70, 0x1FAFF}, {0x20000, 0x3FFFD},
}};

// Marks that every terminal puts onto the character before them.
constexpr std::array<CodeRange, 8> kZeroWidth = {{
    {0x0300, 0x036F},
    {0x0483, 0x0489},
    {0x1AB0, 0x1AFF},
    {0x1DC0, 0x1DFF},
    {0x200B, 0x200D},
    {0x20D0, 0x20FF},
    {0xFE00, 0xFE0F},
    {0xFE20, 0xFE2F},
}};

template <size_t count>
bool is_in(const std::array<CodeRange, count>& ranges, uint32_t point) {
  return std::ranges::any_of(
      ranges, [&](const CodeRange& range) { return point >= range.first && point <= range.last; });
}

struct Character {
  size_t size_bytes = 1;
  size_t columns = 1;
};

bool is_continuation(char c) {
  return (static_cast<unsigned char>(c) & 0xC0U) == 0x80;
}

// The character at the front of `text`, which is not empty. escape() let only well-formed UTF-8
// pass; anything else counts as one column a byte.
Character first_character(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  size_t size_bytes = 1;
  uint32_t point = lead;
  if ((lead & 0xE0U) == 0xC0) {
    size_bytes = 2;
    point = lead & 0x1FU;
  } else if ((lead & 0xF0U) == 0xE0) {
    size_bytes = 3;
    point = lead & 0x0FU;
  } else if ((lead & 0xF8U) == 0xF0) {
    size_bytes = 4;
    point = lead & 0x07U;
  }
  if (size_bytes > text.size()) return {};
  for (size_t i = 1; i < size_bytes; ++i) {
    if (!is_continuation(text[i])) return {};
    point = (point << 6) | (static_cast<unsigned char>(text[i]) & 0x3FU);
  }
  if (size_bytes == 1) return {};
  if (is_in(kZeroWidth, point)) return {size_bytes, 0};
  return {size_bytes, is_in(kWide, point) ? size_t{2} : size_t{1}};
}

unsigned percent(uint64_t done, uint64_t total) {
  if (total == 0 || done >= total) return 100;
  // 99 until the very end; in floating point, since done x 100 may not fit.
  return std::min(
      99U, static_cast<unsigned>(static_cast<double>(done) * 100.0 / static_cast<double>(total)));
}

// The share of the bytes, but not 100 while files are left.
unsigned percent(const Amount& done, const Amount& total) {
  return std::min(percent(done.bytes, total.bytes), done.files < total.files ? 99U : 100U);
}

// Work in bytes. A file costs some 15 us to make whatever its size, in which 16 KiB could have been
// written: with many small files it is their number that takes the time.
double work(const Amount& amount) {
  constexpr double kFileBytes = 16 << 10;
  return static_cast<double>(amount.bytes) + kFileBytes * static_cast<double>(amount.files);
}

std::string bar(unsigned done_percent) {
  const size_t full = kBarColumns * done_percent / 100;
  return "[" + std::string(full, '#') + std::string(kBarColumns - full, '.') + "]";
}

std::string files_text(const ProgressSnapshot& snapshot, std::string_view separator) {
  const bool entries =
      snapshot.phase == ProgressPhase::kListing || snapshot.phase == ProgressPhase::kComparing ||
      snapshot.phase == ProgressPhase::kApplying || snapshot.phase == ProgressPhase::kDeleting;
  std::string out = human_count(snapshot.done.files);
  if (snapshot.total.files > 0) {
    out += fmt::format("{}{}", separator, human_count(snapshot.total.files));
  }
  return out + (entries ? " entries" : " files");
}

void write_fully(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = write(fd, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    // A display that cannot be written is not worth failing a pull for.
    if (count <= 0) return;
    text.remove_prefix(static_cast<size_t>(count));
  }
}

size_t terminal_columns(int fd) {
  winsize size{};
  if (ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kDefaultColumns;
  return std::min<size_t>(size.ws_col, kMaxColumns);
}

bool is_capable_terminal(int fd) {
  if (isatty(fd) == 0) return false;
  const char* term = getenv("TERM");
  return term != nullptr && *term != '\0' && std::string_view(term) != "dumb";
}

// One line, drawn over again with a carriage return. "\x1b[K" (erase to the end of the line) is
// ECMA-48 and understood by every terminal that is not dumb.
class TtyRenderer final : public ProgressRenderer {
 public:
  TtyRenderer(WriteText write, TerminalColumns columns)
      : write_(std::move(write)), columns_(std::move(columns)) {}

  uint64_t interval_ms() const override { return kTtyIntervalMs; }
  bool shows_phase_change() const override { return false; }

  void show(const ProgressSnapshot& snapshot) override {
    // The last column stays free: writing into it makes some terminals wrap.
    const size_t columns = columns_();
    std::string line = render_line(snapshot, columns > 0 ? columns - 1 : 0);
    if (line == drawn_) return;
    drawn_ = std::move(line);
    write_("\r" + drawn_ + "\x1b[K");
  }

  void note(std::string_view line) override {
    write_(cleared() + std::string(line) + "\n" + drawn_);
  }

  void finish(std::string_view line) override {
    std::string text = cleared();
    if (!line.empty()) text += std::string(line) + "\n";
    drawn_.clear();
    if (!text.empty()) write_(text);
  }

 private:
  std::string cleared() const { return drawn_.empty() ? std::string() : "\r\x1b[K"; }

  WriteText write_;
  TerminalColumns columns_;
  std::string drawn_;  // What the line shows now; empty: nothing.
};

class PlainRenderer final : public ProgressRenderer {
 public:
  PlainRenderer(WriteText write, uint64_t interval_ms, PhaseLines phase_lines)
      : write_(std::move(write)), interval_ms_(interval_ms), phase_lines_(phase_lines) {}

  uint64_t interval_ms() const override { return interval_ms_; }
  bool shows_phase_change() const override { return phase_lines_ == PhaseLines::kYes; }

  void show(const ProgressSnapshot& snapshot) override {
    std::string line(to_text(snapshot.phase));
    if (snapshot.total.bytes > 0) {
      line += fmt::format(": {}%, {} of {}", percent(snapshot.done, snapshot.total),
                          human_bytes(snapshot.done.bytes), human_bytes(snapshot.total.bytes));
    }
    if (snapshot.done.files > 0 || snapshot.total.files > 0) {
      line += (snapshot.total.bytes > 0 ? ", " : ": ") + files_text(snapshot, " of ");
    }
    if (snapshot.rate_bytes_per_s > 0) {
      line += fmt::format(", {}/s", human_bytes(snapshot.rate_bytes_per_s));
    }
    if (snapshot.eta_s) line += fmt::format(", {} left", human_duration(*snapshot.eta_s));
    write_(line + "\n");
  }
  void note(std::string_view line) override { write_(std::string(line) + "\n"); }
  void finish(std::string_view line) override {
    if (!line.empty()) write_(std::string(line) + "\n");
  }

 private:
  WriteText write_;
  uint64_t interval_ms_;
  PhaseLines phase_lines_;
};

class QuietRenderer final : public ProgressRenderer {
 public:
  explicit QuietRenderer(WriteText write) : write_(std::move(write)) {}

  uint64_t interval_ms() const override { return UINT64_MAX; }
  bool shows_phase_change() const override { return false; }
  void show(const ProgressSnapshot& /*snapshot*/) override {}
  void note(std::string_view line) override { write_(std::string(line) + "\n"); }
  void finish(std::string_view /*line*/) override {}

 private:
  WriteText write_;
};

}  // namespace

std::string_view to_text(ProgressPhase phase) {
  switch (phase) {
    case ProgressPhase::kConnecting:
      return "connecting";
    case ProgressPhase::kListing:
      return "listing";
    case ProgressPhase::kComparing:
      return "comparing";
    case ProgressPhase::kTransferring:
      return "transferring";
    case ProgressPhase::kApplying:
      return "applying";
    case ProgressPhase::kDeleting:
      return "deleting";
    case ProgressPhase::kVerifying:
      return "verifying";
    case ProgressPhase::kDone:
      return "done";
  }
  return "";
}

std::unique_ptr<ProgressRenderer> make_tty_renderer(WriteText write, TerminalColumns columns) {
  return std::make_unique<TtyRenderer>(std::move(write), std::move(columns));
}

std::unique_ptr<ProgressRenderer> make_plain_renderer(WriteText write, uint64_t interval_ms,
                                                      PhaseLines phase_lines) {
  return std::make_unique<PlainRenderer>(std::move(write), interval_ms, phase_lines);
}

std::unique_ptr<ProgressRenderer> make_quiet_renderer(WriteText write) {
  return std::make_unique<QuietRenderer>(std::move(write));
}

std::unique_ptr<ProgressRenderer> make_renderer(Output output, int fd) {
  WriteText write = [fd](std::string_view text) { write_fully(fd, text); };
  if (output == Output::kQuiet) return make_quiet_renderer(std::move(write));
  if (is_capable_terminal(fd)) {
    return make_tty_renderer(std::move(write), [fd] { return terminal_columns(fd); });
  }
  if (output == Output::kProgress) {
    return make_plain_renderer(std::move(write), kPlainProgressIntervalMs, PhaseLines::kYes);
  }
  return make_plain_renderer(std::move(write), kPlainIntervalMs, PhaseLines::kNo);
}

size_t display_columns(std::string_view text) {
  size_t columns = 0;
  while (!text.empty()) {
    const Character character = first_character(text);
    columns += character.columns;
    text.remove_prefix(character.size_bytes);
  }
  return columns;
}

std::string fit_tail(std::string_view text, size_t columns) {
  static constexpr std::string_view kEllipsis = "...";
  size_t excess = display_columns(text);
  if (excess <= columns) return std::string(text);
  if (columns <= kEllipsis.size()) return std::string(columns, '.');
  const size_t room = columns - kEllipsis.size();
  // Drops from the front until the rest fits, and then marks that lost their character.
  while (!text.empty()) {
    const Character character = first_character(text);
    if (excess <= room && character.columns > 0) break;
    excess -= character.columns;
    text.remove_prefix(character.size_bytes);
  }
  return std::string(kEllipsis) + std::string(text);
}

std::string render_line(const ProgressSnapshot& snapshot, size_t columns) {
  std::string line(to_text(snapshot.phase));
  if (line.size() > columns) return line.substr(0, columns);
  // Parts in the order of their worth; the first that does not fit ends the line.
  bool full = false;
  const auto add = [&](const std::string& part) {
    full = full || line.size() + 2 + part.size() > columns;
    if (!full) line += "  " + part;
  };
  if (snapshot.total.bytes > 0) {
    const unsigned done_percent = percent(snapshot.done, snapshot.total);
    add(fmt::format("{:>3}%", done_percent));
    if (columns >= kColumnsForBar) add(bar(done_percent));
    add(fmt::format("{:>8} / {}", human_bytes(snapshot.done.bytes),
                    human_bytes(snapshot.total.bytes)));
    add(fmt::format("{:>10}", human_bytes(snapshot.rate_bytes_per_s) + "/s"));
    add(snapshot.eta_s ? "ETA " + human_duration(*snapshot.eta_s) : "ETA -:--");
  } else if (snapshot.rate_bytes_per_s > 0) {
    add(human_bytes(snapshot.done.bytes));
    add(human_bytes(snapshot.rate_bytes_per_s) + "/s");
  }
  if (snapshot.done.files > 0 || snapshot.total.files > 0) add(files_text(snapshot, " / "));
  if (!full && !snapshot.current.empty() && line.size() + 2 + kMinNameColumns <= columns) {
    line += "  " + fit_tail(snapshot.current, columns - line.size() - 2);
  }
  return line;
}

Progress::Progress(Clock& clock, std::unique_ptr<ProgressRenderer> renderer)
    : clock_(clock),
      began_ms_(clock.monotonic_ms()),
      renderer_(std::move(renderer)),
      shown_at_ms_(began_ms_) {
  samples_.push_back({began_ms_, 0});
}

Progress::~Progress() {
  finish("");
}

void Progress::start(ProgressPhase phase, Amount total) {
  const std::lock_guard lock(mutex_);
  phase_ = phase;
  done_ = {};
  total_ = total;
  current_.clear();
  samples_.clear();
  samples_.push_back({clock_.monotonic_ms(), transferred_});
}

void Progress::set_total(Amount total) {
  const std::lock_guard lock(mutex_);
  total_ = total;
}

void Progress::add(uint64_t bytes, uint64_t files) {
  const std::lock_guard lock(mutex_);
  // First: the sample is what had been transferred until now.
  sample(clock_.monotonic_ms());
  done_.bytes += bytes;
  done_.files += files;
  transferred_.bytes += bytes;
  transferred_.files += files;
}

void Progress::skip(uint64_t bytes, uint64_t files) {
  const std::lock_guard lock(mutex_);
  done_.bytes += bytes;
  done_.files += files;
}

void Progress::set_current(std::string_view path) {
  const std::lock_guard lock(mutex_);
  current_.assign(path);
}

ProgressSnapshot Progress::snapshot() const {
  const std::lock_guard lock(mutex_);
  return snapshot_locked(clock_.monotonic_ms());
}

void Progress::tick() {
  const std::lock_guard render_lock(render_mutex_);
  if (finished_) return;
  uint64_t now_ms = 0;
  ProgressSnapshot now;
  {
    const std::lock_guard lock(mutex_);
    now_ms = clock_.monotonic_ms();  // Under the lock, so that samples stay in order.
    sample(now_ms);
    const bool phase_changed = renderer_->shows_phase_change() && phase_ != shown_phase_;
    if (!phase_changed && now_ms - shown_at_ms_ < renderer_->interval_ms()) return;
    now = snapshot_locked(now_ms);
  }
  shown_at_ms_ = now_ms;
  shown_phase_ = now.phase;
  renderer_->show(now);
}

void Progress::note(std::string_view line) {
  const std::lock_guard render_lock(render_mutex_);
  renderer_->note(line);
}

void Progress::finish(std::string_view line) {
  const std::lock_guard render_lock(render_mutex_);
  if (std::exchange(finished_, true)) return;
  renderer_->finish(line);
}

void Progress::sample(uint64_t now_ms) {
  if (now_ms - samples_.back().at_ms >= kSampleMs) samples_.push_back({now_ms, transferred_});
  // The oldest one that is kept lies at the border of the window or just before it.
  while (samples_.size() > 1 &&
         (samples_[1].at_ms + kWindowMs <= now_ms || samples_.size() > kMaxSamples)) {
    samples_.pop_front();
  }
}

ProgressSnapshot Progress::snapshot_locked(uint64_t now_ms) const {
  ProgressSnapshot out;
  out.phase = phase_;
  out.done = done_;
  out.total = total_;
  out.elapsed_ms = now_ms - began_ms_;
  out.current = escape(current_);
  const Sample& oldest = samples_.front();
  const uint64_t span_ms = now_ms - oldest.at_ms;
  // Less than one sample long, a rate is noise.
  if (span_ms < kSampleMs) return out;
  const auto span_s = static_cast<double>(span_ms) / 1000.0;
  out.rate_bytes_per_s = static_cast<uint64_t>(
      static_cast<double>(transferred_.bytes - oldest.transferred.bytes) / span_s);
  const double work_per_s = (work(transferred_) - work(oldest.transferred)) / span_s;
  const double work_left = work(total_) - work(done_);
  if (work(total_) <= 0) return out;
  if (work_left <= 0) {
    out.eta_s = 0;
  } else if (work_per_s > 0) {
    out.eta_s = static_cast<uint64_t>(std::ceil(work_left / work_per_s));
  }
  return out;
}

}  // namespace superlifter::client
