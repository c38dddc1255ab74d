// Signature: the weak and strong checksums of a file's blocks, at several block lengths.
//
//   level 10 (1 KiB)   ┌──┬──┬──┬──┬──┬──┬──┬──┬──┬──┬──┬──┬──┬┐   leaves: summed from the bytes
//   level 12 (4 KiB)   └──┴──┴──┴──┼──┴──┴──┴──┼──┴──┴──┴──┼──┴┘   four of the finer level each;
//   level 14 (16 KiB)  └───────────┴───────────┴───────────┴───    the last block may be short
//
// weak(block)    as hash/rolling.h; the sums of four blocks join into that of the coarser one.
// strong(block)  up to 1 KiB: XXH3-64 of its bytes. Above: XXH3-64 of the strong checksums, 8 bytes
//                each, little-endian, of the (up to four) blocks of the next finer level in it.
//
// So all levels cost one pass over the bytes. A BlockSum keeps the weak checksum and the low 32
// bits of the strong one: 8 bytes a block, with all levels together 4/3 of the finest: 1.04 % of
// the content at 1 KiB. On the wire a sum may be cut to fewer bytes: its first 4 are the weak
// checksum, the others the strong one's lowest. A signature is no secret and no proof: whatever is
// built with it is checked by the file's digest.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/base/bytes.h"
#include "core/base/result.h"
#include "core/delta/block_length.h"

namespace superlifter::delta {

// 8 bytes, little-endian, stored as it stands.
struct BlockSum {
  uint32_t weak = 0;
  uint32_t strong = 0;

  friend bool operator==(const BlockSum&, const BlockSum&) = default;
};
static_assert(sizeof(BlockSum) == 8);

// Bytes of a sum on the wire.
constexpr unsigned kLeastWidth = 4;
constexpr unsigned kMostWidth = 8;

// The sum as `width` bytes hold it: what is cut off is zero.
constexpr BlockSum cut(BlockSum sum, unsigned width) {
  if (width < kMostWidth) sum.strong &= (uint32_t{1} << (8 * (width - kLeastWidth))) - 1;
  return sum;
}

// The full strong checksum of a block at a level; a short (last) block too.
uint64_t strong_sum(ByteView block, unsigned level);

// Both checksums of a block.
BlockSum block_sum(ByteView block, unsigned level);

// Appends the sums of the blocks of `bytes`, `width` bytes each. `bytes` begins at a block border;
// the last block may be short.
void append_sums(ByteView bytes, unsigned level, unsigned width, Bytes& out);
// The same from kept sums.
void append_sums(std::span<const BlockSum> sums, unsigned width, Bytes& out);
// REQUIRES: bytes.size() is a multiple of width.
std::vector<BlockSum> parse_sums(ByteView bytes, unsigned width);

// Where the levels of a kept signature lie: one array of BlockSum a level, finest first, side by
// side.
class SignatureLayout {
 public:
  SignatureLayout() = default;
  // REQUIRES: finest is a level, not below kLeafLevel.
  SignatureLayout(uint64_t file_bytes, unsigned finest_level);

  unsigned finest_level() const { return finest_; }
  unsigned coarsest_level() const { return coarsest_; }
  bool has_level(unsigned level) const {
    return is_level(level) && level >= finest_ && level <= coarsest_;
  }
  // Bytes from the beginning of the signature to a block's sum. REQUIRES: has_level(level).
  uint64_t offset_of(unsigned level, uint64_t block) const;
  uint64_t size_bytes() const { return size_bytes_; }

 private:
  uint64_t file_bytes_ = 0;
  unsigned finest_ = kLeafLevel;
  unsigned coarsest_ = kLeafLevel - kLevelStep;  // No level, until it is made of a file.
  uint64_t size_bytes_ = 0;
};

// Makes a signature from a file's bytes as they are read. Memory does not grow with the file: sums
// are handed on in runs. Can be used for one file after the other.
class SignatureBuilder {
 public:
  // `first_block`: number of the first sum's block at that level. Runs of one level come in order.
  // Borrowed for the call.
  using Sink =
      std::function<Status(unsigned level, uint64_t first_block, std::span<const BlockSum> sums)>;

  // Begins a file of that length: its bytes will come by update(), all of them. The sink is called
  // from update() and finish().
  void begin(const SignatureLayout& layout, Sink sink);
  // The next bytes. The sink's failure is returned, and from then on by every call.
  [[nodiscard]] Status update(ByteView bytes);
  // After the last byte.
  [[nodiscard]] Status finish();

 private:
  static constexpr size_t kLevels = (kCoarsestLevel - kLeafLevel) / kLevelStep + 1;
  static constexpr size_t kRunSums = 4096;  // Handed on together: 32 KiB.

  struct Block {
    uint64_t strong = 0;
    uint32_t weak = 0;
    uint64_t length_bytes = 0;
  };
  // One level on its way: its unfinished block, and sums not handed on yet.
  struct Level {
    std::array<uint64_t, 4> parts{};  // Strong checksums of the finer blocks so far.
    unsigned part_count = 0;
    uint32_t weak = 0;  // Of their bytes.
    uint64_t length_bytes = 0;
    std::vector<BlockSum> run;
    uint64_t run_first = 0;
  };

  void add_leaf(ByteView leaf);
  void add_block(unsigned level, Block block);
  Block take_block(unsigned level);
  void hand_on(unsigned level);
  Level& at(unsigned level) { return levels_[(level - kLeafLevel) / kLevelStep]; }

  SignatureLayout layout_;
  Sink sink_;
  Status status_;
  Bytes partial_;  // A leaf that is not complete yet; less than 1 KiB.
  std::array<Level, kLevels> levels_;
};

}  // namespace superlifter::delta
