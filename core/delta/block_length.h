// Block lengths: which there are, which a server keeps, and where a client begins.
//
// Lengths are powers of four, from 64 bytes on: each block of one level is four of the next finer
// one, so that refining a block that found no match costs four checksums whatever the level, and
// their sums can be made from one another.
#pragma once

#include <algorithm>
#include <cstdint>

namespace superlifter::delta {

// A level is the binary logarithm of its block length: even, 6 (64 bytes) to 28 (256 MiB).
constexpr unsigned kFinestLevel = 6;
constexpr unsigned kCoarsestLevel = 28;
constexpr unsigned kLevelStep = 2;

// The level at which strong checksums begin to be made from those of four finer blocks
// (signature.h). A server that keeps signatures keeps no finer level than this.
constexpr unsigned kLeafLevel = 10;

// A server makes sums up to this block length on demand, from the file.
constexpr unsigned kMostOnDemandLevel = 16;

constexpr bool is_level(unsigned level) {
  return level >= kFinestLevel && level <= kCoarsestLevel && level % kLevelStep == 0;
}

constexpr uint64_t block_length_bytes(unsigned level) {
  return uint64_t{1} << level;
}

// Blocks of a file; the last may be short.
constexpr uint64_t block_count(uint64_t file_bytes, unsigned level) {
  return (file_bytes >> level) + ((file_bytes & (block_length_bytes(level) - 1)) != 0 ? 1 : 0);
}

// Files shorter than this have no signature kept: a delta of theirs saves less than it costs.
constexpr uint64_t kLeastSignedBytes = 2048;

// The coarsest level that is kept of a file: the last with eight blocks or more, but at least the
// leaf level. Coarser ones would hardly ever match.
constexpr unsigned coarsest_kept_level(uint64_t file_bytes, unsigned finest_kept) {
  unsigned level = finest_kept;
  while (level + kLevelStep <= kCoarsestLevel && (file_bytes >> (level + kLevelStep)) >= 8)
    level += kLevelStep;
  return level;
}

// Where a client begins: four times the square root of the file's length, rounded down to a level.
// From there sums cost about as much as refining a few changes does: 1 KiB up to 1 MiB, 16 KiB at
// 23 MB, 64 KiB at 1.3 GB.
constexpr unsigned first_level(uint64_t file_bytes, unsigned finest_kept) {
  unsigned level = finest_kept;
  while (level + kLevelStep <= kCoarsestLevel &&
         file_bytes >> (2 * (level + kLevelStep) - 4) != 0) {
    level += kLevelStep;
  }
  return std::min(level, coarsest_kept_level(file_bytes, finest_kept));
}

}  // namespace superlifter::delta
