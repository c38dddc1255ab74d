// Refiner: makes the plan of one file, from coarse blocks to fine ones.
//
//              ┌────────── ask(): level, width, runs of blocks ──────────┐
//              │                                                         ▼
//   begin ─▶ choose level          sums from the server ─▶ answer() ─▶ search() ─▶ merge
//              ▲                                                                    │
//              └───────── blocks without a match, one level finer ◀─────────────────┘
//                                   │ nothing left, or not worth it
//                                   ▼
//                                 plan()
//
// A level's search has two steps. First, each run of missing blocks is extended from both sides:
// what was found left of it probably goes on a little, and likewise on its right; that needs no
// rolling and little evidence. Then the blocks still missing are searched for (matcher.h) in what
// of the basis no match has used yet; in a short basis, everywhere.
//
// Evidence. A sum of w bytes agrees by chance at one of 2^8w places. How many bytes are asked for
// follows from the places that will be looked at, the blocks, and what a wrong match would cost:
// the whole file, since the digest will be wrong. A block that was found by itself with too little
// evidence counts only if its neighbour in the target was found beside it (zsync's sequential
// matches).
//
// Pure: no file, no socket, no clock. Its driver fetches sums and reads the basis.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "core/base/result.h"
#include "core/delta/block_length.h"
#include "core/delta/matcher.h"
#include "core/delta/plan.h"
#include "core/delta/signature.h"

namespace superlifter::delta {

// [first, first + count) of a file's blocks.
struct BlockRun {
  uint64_t first = 0;
  uint64_t count = 0;

  uint64_t end() const { return first + count; }
  friend bool operator==(const BlockRun&, const BlockRun&) = default;
};

// Calls work(0) … work(count - 1), in any order, on as many threads as it likes, and comes back
// when all have ended.
using ParallelFor = std::function<void(size_t count, const std::function<void(size_t)>& work)>;

struct RefinerOptions {
  uint64_t target_bytes = 0;
  uint64_t basis_bytes = 0;
  unsigned finest_kept_level = kLeafLevel;  // Of the server's signatures.
  unsigned finest_level = 8;                // To refine to; 256 bytes: bench/delta_model.
};

class Refiner {
 public:
  explicit Refiner(const RefinerOptions& options);

  // What sums are wanted now.
  struct Ask {
    unsigned level = 0;
    unsigned width = 0;
    std::vector<BlockRun> runs;  // Ascending, none empty, none touches the next.

    uint64_t block_count() const;
    // Of the answer.
    uint64_t size_bytes() const { return block_count() * width; }
  };
  // Nothing: the plan is complete.
  const std::optional<Ask>& ask() const { return ask_; }

  // The sums of all blocks of the ask, in order, and with them the search; afterwards ask() tells
  // what is next. `read` is called on the threads of `parallel`. kProtocol when the sums are not
  // as many as were asked for.
  [[nodiscard]] Status answer(ByteView sums, const BasisReader& read, const ParallelFor& parallel);

  // The sums cannot be had: what was found so far is all.
  void stop() { ask_.reset(); }

  // What has been found. Complete when there is no ask.
  const Plan& plan() const { return plan_; }

 private:
  void make_ask(unsigned level);
  unsigned choose_width(uint64_t places, uint64_t blocks) const;
  std::vector<BlockRun> missing_runs(unsigned level) const;
  std::vector<Range> places_to_search(unsigned level) const;
  void extend(const Ask& ask, const std::vector<BlockSum>& sums, const BasisReader& read,
              const ParallelFor& parallel);
  void search_rest(const Ask& ask, const std::vector<BlockSum>& sums, const BasisReader& read,
                   const ParallelFor& parallel);
  std::vector<Match> choose_matches(const Ask& ask, std::vector<Match> matches,
                                    const BlockTable& table, uint64_t places) const;
  void add_copies(std::vector<Copy> copies);

  const RefinerOptions options_;
  Plan plan_;
  std::optional<Ask> ask_;
  uint64_t asked_bytes_ = 0;  // Of sums, so far.
  bool edges_only_ = false;   // Of what is missing, only the edges are asked for.
};

}  // namespace superlifter::delta
