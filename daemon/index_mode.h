// Index mode: the only writer of catalogs, in two forms. `superlifterd index` makes one pass over
// the modules and ends; the daemon's indexer makes passes for as long as the master lives, one
// module after the other, at low CPU and I/O priority.
//
//   when a module is looked at:  at start; by interval (rescan); when the master says so (SIGUSR1,
//   at once); when a worker met a changed file, or file-system events came in: after a quiet
//   moment, and no more often than a tenth of the time goes into passes
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/catalog/indexer.h"
#include "daemon/inheritance.h"
#include "daemon/settings.h"

namespace superlifter::daemon {

// When a module is due for its next pass; plain data and no clock, so that tests drive it. All
// times are monotonic milliseconds.
class RescanSchedule {
 public:
  static constexpr uint64_t kQuietMs = 1'000;         // After the last event.
  static constexpr uint64_t kLongestWaitMs = 30'000;  // After the first event.
  static constexpr uint64_t kRestFactor = 10;         // Passes take a tenth of the time at most.
  static constexpr uint64_t kRetryMs = 2'000;         // After a pass that met another writer.

  // 0: no passes by interval.
  explicit RescanSchedule(uint64_t rescan_ms) : rescan_ms_(rescan_ms) {}

  void on_event(uint64_t now_ms);  // Something changed in the tree.
  void on_request() { at_once_ = true; }
  void on_pass_done(uint64_t began_ms, uint64_t ended_ms);
  void on_pass_failed(uint64_t began_ms, uint64_t ended_ms, Errc code);

  // When the next pass is due; nothing when only an event or a request can bring one.
  std::optional<uint64_t> due_ms() const;

 private:
  uint64_t rescan_ms_;
  bool at_once_ = true;  // The pass at start.
  std::optional<uint64_t> first_event_ms_;
  std::optional<uint64_t> last_event_ms_;
  std::optional<uint64_t> retry_ms_;
  uint64_t ended_ms_ = 0;
  uint64_t lasted_ms_ = 0;
};

// The log line (and the line of `superlifterd index`) for the outcome of a pass.
std::string describe(const std::string& module, const catalog::IndexReport& report);

// superlifterd index: the named modules, or all. The exit code.
int run_index_command(const Settings& settings, const std::vector<std::string>& modules,
                      unsigned threads);

// The daemon's indexer. The exit code.
int run_indexer(Inheritance inheritance);

}  // namespace superlifter::daemon
