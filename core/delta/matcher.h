// Matcher: finds blocks of the target in the basis, by their sums.
//
//   basis   ───┬───────────┬───────────┬─ ─ ─ ─ ─ ─ ─ ─┬───────────┬──
//              │  block 7  │  block 8  │  rolls a byte │  block 11 │
//              └───────────┴───────────┘  at a time    └───────────┘
//
// Where one block was found, the next one is expected right behind it, and tried there first: what
// agrees is passed at memory speed. Where that fails, a few blocks are taken as changed in place
// when the one behind them is where it would then be. Only else does the weak checksum roll over
// the basis byte by byte; a bit filter in cache answers most positions, then a table of weak
// checksums, then the strong one.
//
// Hostile sums: blocks with equal sums are one value, however many they are; of different values
// with one weak checksum few are tried at a position (rsync 3.5.0 had to bound the same chain); and
// a value whose weak checksum was found kMostFalseMatches times where its strong one was not is
// tried no more. So the work is linear in the basis and the target, whatever the sums are.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "core/base/bytes.h"
#include "core/delta/plan.h"
#include "core/delta/signature.h"
#include "core/hash/rolling.h"

namespace superlifter::delta {

// Reads the basis: fills `into` from `offset` on. False when that cannot be done; then the search
// ends early and what it has found stands. Called from several threads.
using BasisReader = std::function<bool(uint64_t offset, MutableBytes into)>;

struct Match {
  uint64_t block = 0;  // Number in the target.
  uint64_t basis_offset = 0;

  friend auto operator<=>(const Match&, const Match&) = default;
};

// The blocks of one level that are searched for. Filled once, then read by many threads.
class BlockTable {
 public:
  BlockTable(unsigned level, unsigned width) : level_(level), width_(width) {}

  // REQUIRES: block numbers ascend; each block has its full length.
  void add(uint64_t block, BlockSum sum);
  // After the last add, before the first search.
  void seal();

  unsigned level() const { return level_; }
  size_t size() const { return blocks_.size(); }

  // Where in the table a block is; size() when it is not.
  size_t find_block(uint64_t block) const;
  uint64_t block_at(size_t index) const { return blocks_[index].number; }
  // Whether the bytes, a full block, have the sum of a block of the table.
  bool is_block(size_t index, ByteView bytes) const;

  // Whether any block may have this weak checksum; wrongly true for some 2 % of all others.
  bool may_have(uint32_t weak) const {
    const uint32_t bit = weak >> filter_shift_;
    return (filter_[bit / 64] >> (bit % 64) & 1) != 0;
  }
  // Fetches what find() will look at for this weak checksum into the cache: first where in the
  // table, then, when that has come, what is there.
  void prefetch_start(uint32_t weak) const { __builtin_prefetch(&starts_[weak >> starts_shift_]); }
  void prefetch_value(uint32_t weak) const {
    __builtin_prefetch(values_.data() + starts_[weak >> starts_shift_]);
  }
  // The block with the sum of these bytes, whose weak checksum is `weak`: of several with equal
  // sums the first behind `after`, else the first. size() when there is none.
  size_t find(uint32_t weak, ByteView bytes, uint64_t after) const;

  // How often a weak checksum was found whose strong one was not. Each costs at most the summing of
  // a block.
  uint64_t false_matches() const;

  // Calls `fill(block, basis_offset)` for each block that was not matched itself but equals one
  // that was.
  void fill_equals(std::span<const Match> matches,
                   const std::function<void(uint64_t block, uint64_t basis_offset)>& fill) const;

 private:
  struct Block {
    uint64_t number = 0;
    uint32_t value = 0;  // Index of its sum in values_.
  };
  // A sum, and the blocks that have it: by_value_[first .. first + count), ascending.
  struct Value {
    BlockSum sum;
    uint32_t first = 0;
    uint32_t count = 0;
  };

  BlockSum sum_of(ByteView bytes) const;

  const unsigned level_;
  const unsigned width_;
  std::vector<Block> blocks_;       // Ascending numbers.
  std::vector<BlockSum> sums_;      // Of blocks_; until seal().
  std::vector<Value> values_;       // Ascending weak checksums.
  std::vector<uint32_t> by_value_;  // Indexes of blocks_.
  std::vector<uint64_t> filter_;    // One bit for each range of weak checksums.
  unsigned filter_shift_ = 0;
  std::vector<uint32_t> starts_;  // By the upper bits of the weak checksum: where in values_.
  unsigned starts_shift_ = 0;
  // By value: how often only the weak checksum was found. Relaxed: a count too few does no harm.
  std::unique_ptr<std::atomic<uint8_t>[]> false_matches_;
};

// Searches the basis for blocks that begin at one of `positions`. Appends to `out`; a block may be
// found more than once. Cost: one pass over the range, a buffer of 1 MiB or a few blocks.
void search(const BlockTable& table, const BasisReader& read, uint64_t basis_bytes, Range positions,
            std::vector<Match>& out);

}  // namespace superlifter::delta
