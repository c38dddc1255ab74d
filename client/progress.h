// Progress: what a pull shows while it runs. A model that any thread may feed, and renderers that
// turn its snapshot into text: one line redrawn in place on a terminal, a line every few seconds
// elsewhere, or nothing.
//
// The ETA needs no guessing about sizes: the generation says how much there is before the first
// byte comes, so it is what remains divided by the rate of the last seconds.
//
//   Progress progress(clock, make_renderer(options.output, 2));
//   progress.start(ProgressPhase::kTransferring, {.bytes = …, .files = …});
//   progress.add(bytes, files);         any thread, often
//   progress.tick();                    the main loop, at least ten times a second
//   progress.note("skipped x: …");      a line of its own that the display does not overwrite
//   progress.finish(stats.summary());
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "client/options.h"
#include "core/base/clock.h"

namespace superlifter::client {

enum class ProgressPhase {
  kConnecting,
  kListing,
  kComparing,
  kTransferring,
  kApplying,
  kDeleting,
  kVerifying,
  kDone,
};

// "connecting", "listing", …
std::string_view to_text(ProgressPhase phase);

// Amounts of work. A phase counts what it has: "files" are entries while listing, comparing,
// deleting.
struct Amount {
  uint64_t bytes = 0;
  uint64_t files = 0;
};

struct ProgressSnapshot {
  ProgressPhase phase = ProgressPhase::kConnecting;
  Amount done;                    // Of this phase.
  Amount total;                   // Of this phase; zeros: not known.
  uint64_t rate_bytes_per_s = 0;  // Over the sliding window.
  std::optional<uint64_t> eta_s;  // Nothing: not known (no total or no rate yet).
  uint64_t elapsed_ms = 0;        // Since the Progress was made.
  std::string current;            // Escaped.
};

// Turns snapshots into output. Called by one thread at a time.
class ProgressRenderer {
 public:
  virtual ~ProgressRenderer() = default;
  // At least this long between two calls of show(), except at a change of phase if
  // show_phase_change().
  virtual uint64_t interval_ms() const = 0;
  virtual bool shows_phase_change() const = 0;
  virtual void show(const ProgressSnapshot& snapshot) = 0;
  // A line (without newline) that stays.
  virtual void note(std::string_view line) = 0;
  // Takes the display away and leaves `line`, unless it is empty. Nothing is shown after that.
  virtual void finish(std::string_view line) = 0;
};

// How renderers write, and how wide the terminal is now; seams for tests. The renderer calls
// `write` with whole lines or whole redraws.
using WriteText = std::function<void(std::string_view)>;
using TerminalColumns = std::function<size_t()>;

std::unique_ptr<ProgressRenderer> make_tty_renderer(WriteText write, TerminalColumns columns);
// Whether a plain renderer says when a new phase begins.
enum class PhaseLines { kNo, kYes };
// A line every `interval_ms`.
std::unique_ptr<ProgressRenderer> make_plain_renderer(WriteText write, uint64_t interval_ms,
                                                      PhaseLines phase_lines);
// Notes only: they are warnings and errors, which --quiet does not hide.
std::unique_ptr<ProgressRenderer> make_quiet_renderer(WriteText write);

// The renderer that `output` asks for, on the borrowed `fd` (2, normally). A terminal with
// TERM=dumb or none is treated as no terminal.
std::unique_ptr<ProgressRenderer> make_renderer(Output output, int fd);

// The display line for a terminal of `columns` columns: never wider, never half a character.
std::string render_line(const ProgressSnapshot& snapshot, size_t columns);

// `text`, escaped UTF-8, cut to `columns` columns of a terminal; the front gives way ("…c/d.txt"),
// since the end of a path says more.
std::string fit_tail(std::string_view text, size_t columns);
// Columns that `text`, escaped UTF-8, takes on a terminal: two for East Asian wide, none for marks.
size_t display_columns(std::string_view text);

class Progress {
 public:
  // Borrows the clock for its lifetime.
  Progress(Clock& clock, std::unique_ptr<ProgressRenderer> renderer);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  Progress(Progress&&) = delete;
  Progress& operator=(Progress&&) = delete;

  // --- Any thread ---
  // Begins a phase: counts, rate and the current name start afresh.
  void start(ProgressPhase phase, Amount total = {});
  // Corrects the total of the present phase, for instance by what turned out to be unchanged.
  void set_total(Amount total);
  // Work done by transfer: counts for the rate.
  void add(uint64_t bytes, uint64_t files);
  // Work that needed no transfer (unchanged, resumed): counts as done but not for the rate.
  void skip(uint64_t bytes, uint64_t files);
  // The file at hand, as raw bytes.
  void set_current(std::string_view path);
  ProgressSnapshot snapshot() const;

  // --- One thread at a time with each other (they take a lock of their own) ---
  // Shows the present state if it is time to. Cheap when it is not: one clock call and one lock.
  void tick();
  // A line (without newline, already fit to print) that the display does not overwrite.
  void note(std::string_view line);
  // Ends the display and leaves `line`. The first call counts. The destructor finishes with
  // nothing.
  void finish(std::string_view line);

 private:
  struct Sample {
    uint64_t at_ms = 0;
    Amount transferred;  // In all phases until then.
  };

  void sample(uint64_t now_ms);  // REQUIRES: mutex_ held.
  ProgressSnapshot snapshot_locked(uint64_t now_ms) const;

  Clock& clock_;
  const uint64_t began_ms_;

  mutable std::mutex mutex_;  // Guards what follows, up to the next blank line.
  ProgressPhase phase_ = ProgressPhase::kConnecting;
  Amount done_;
  Amount total_;
  Amount transferred_;          // Never goes back.
  std::string current_;         // Raw.
  std::deque<Sample> samples_;  // Oldest first, at most kMaxSamples, kSampleMs apart.

  std::mutex render_mutex_;  // Guards the renderer and the rest. Taken before mutex_.
  std::unique_ptr<ProgressRenderer> renderer_;
  uint64_t shown_at_ms_;
  ProgressPhase shown_phase_ = ProgressPhase::kConnecting;
  bool finished_ = false;
};

}  // namespace superlifter::client
