// Patcher: finds out what of a target file a basis in DEST holds already, for many files at once.
//
//   add() ─▶ wanting sums ──SIGNATURE──▶ waiting ──SUMS──▶ matching (MatchPool) ─▶ take_plans()
//                 ▲                                             │
//                 └──────────── one level finer ◀───────────────┘
//
// Files take their levels (delta/refiner.h) side by side: one request asks for the sums of all
// files that want some at that level and width, so that a level costs a round trip for all of them
// and not for each, and while sums are under way other files are matched and their content comes.
//
// One thread, the network's, but for the matching. Memory: some hundred bytes a file on its way, of
// which there are at most kFilesAhead, and the sums that were asked for.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "client/conversation.h"
#include "client/match_pool.h"
#include "core/base/result.h"
#include "core/delta/plan.h"
#include "core/delta/refiner.h"
#include "core/tree/table.h"

namespace superlifter::client {

struct PatcherOptions {
  int destination_fd = -1;       // Borrowed.
  tree::TableView table;         // Borrowed.
  uint32_t first_entry = 0;      // Number in the module of the table's entry 0.
  unsigned signature_level = 0;  // Finest that the server keeps; not 0.
  unsigned threads = 1;
};

class Patcher {
 public:
  // A file whose plan is made, or that is better fetched whole (`plan` is null then).
  struct Planned {
    uint32_t entry = 0;
    std::string basis;  // Path below DEST.
    std::shared_ptr<const delta::Plan> plan;
  };

  // Starts the threads. `conversation` is borrowed.
  Patcher(PatcherOptions options, Conversation& conversation);
  // Ends what is being matched, soon.
  ~Patcher();
  Patcher(const Patcher&) = delete;
  Patcher& operator=(const Patcher&) = delete;

  // Whether one more file may be added now.
  bool has_room() const { return tasks_.size() < kFilesAhead; }
  // A file to make a plan for: an entry of the table, and a basis of some bytes.
  void add(uint32_t entry, std::string basis, uint64_t basis_bytes);
  // Sums were asked for and have not come, or are about to be.
  bool awaits_sums() const { return !flights_.empty() || !wanted_.empty(); }

  // Takes in what has come and been matched, and asks for what is wanted next. A failure is the
  // conversation's; kGone when the generation is no longer kept.
  [[nodiscard]] Status advance();
  // Plans that are ready, each once.
  std::vector<Planned> take_plans();

  uint64_t sum_bytes() const { return sum_bytes_; }  // Received so far.

 private:
  static constexpr size_t kFilesAhead = 8192;
  static constexpr size_t kRequestsInFlight = 16;
  static constexpr uint64_t kRequestSumBytes = 1 << 20;  // Asked for together.

  struct Task;
  // A part of a task's ask: blocks that are asked for in one item.
  struct Part {
    Task* task = nullptr;  // Owned by tasks_.
    delta::BlockRun run;
    size_t sums_offset = 0;  // In the task's sums.
  };
  struct Flight {  // One SIGNATURE.
    unsigned width = 0;
    std::vector<Part> parts;
  };

  void want(Task& task, const delta::Refiner::Ask& ask);
  void send_requests();
  void send_request(unsigned level, unsigned width, std::deque<Part>& parts);
  Status receive_sums();
  Status on_reply(const Flight& flight, ByteView reply);
  void match(Task& task);
  void go_on(Task& task);
  void finish(Task& task);

  const PatcherOptions options_;
  Conversation& conversation_;
  std::unordered_map<Task*, std::unique_ptr<Task>> tasks_;
  std::map<std::pair<unsigned, unsigned>, std::deque<Part>> wanted_;  // By level and width.
  std::map<uint32_t, Flight> flights_;                                // By request.
  std::vector<Planned> planned_;
  uint64_t sum_bytes_ = 0;

  std::atomic<bool> stop_ = false;  // Relaxed: only ends reads early.
  std::mutex matched_mutex_;
  std::vector<Task*> matched_;       // Guarded by matched_mutex_: their matching has ended.
  std::unique_ptr<MatchPool> pool_;  // The last member: its threads use the others.
};

}  // namespace superlifter::client
