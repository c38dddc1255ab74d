#include "core/delta/signature.h"

#include <algorithm>
#include <utility>

#include "core/hash/digest.h"
#include "core/hash/rolling.h"

namespace superlifter::delta {
namespace {

constexpr size_t kLeafBytes = size_t{1} << kLeafLevel;
constexpr size_t kMostLevels = (kCoarsestLevel - kLeafLevel) / kLevelStep + 1;

// M^(block length) of each level from the leaves on.
constexpr std::array<uint32_t, kMostLevels> level_powers() {
  std::array<uint32_t, kMostLevels> powers{};
  for (size_t i = 0; i < kMostLevels; ++i)
    powers[i] = hash::weak_power(block_length_bytes(kLeafLevel + static_cast<unsigned>(i) * 2));
  return powers;
}

uint32_t power_of(unsigned level, uint64_t length_bytes) {
  constexpr std::array<uint32_t, kMostLevels> kPowers = level_powers();
  return length_bytes == block_length_bytes(level) ? kPowers[(level - kLeafLevel) / kLevelStep]
                                                   : hash::weak_power(length_bytes);
}

// The strong checksum over those of up to four finer blocks.
uint64_t join_strong(std::span<const uint64_t> parts) {
  std::array<uint8_t, 32> bytes{};
  for (size_t i = 0; i < parts.size(); ++i) {
    for (size_t byte = 0; byte < 8; ++byte)
      bytes[8 * i + byte] = static_cast<uint8_t>(parts[i] >> (8 * byte));
  }
  return hash::xxh64(ByteView(bytes).first(8 * parts.size()));
}

void encode_sum(BlockSum sum, unsigned width, Bytes& out) {
  // [sum-weak], then [sum-strong], cut to width.
  const uint64_t value = uint64_t{sum.strong} << 32 | sum.weak;
  for (unsigned byte = 0; byte < width; ++byte)
    out.push_back(static_cast<uint8_t>(value >> (8 * byte)));
}

}  // namespace

uint64_t strong_sum(ByteView block, unsigned level) {
  if (level <= kLeafLevel) return hash::xxh64(block);
  // Unfinished groups of four, one a level; a group that is full becomes one part of the next.
  std::array<std::array<uint64_t, 4>, kMostLevels> parts{};
  std::array<unsigned, kMostLevels> counts{};
  const size_t top = (level - kLeafLevel) / kLevelStep;
  for (size_t at = 0; at < block.size(); at += kLeafBytes) {
    uint64_t strong = hash::xxh64(block.subspan(at, std::min(kLeafBytes, block.size() - at)));
    for (size_t i = 0; i < top; ++i) {
      parts[i][counts[i]++] = strong;
      if (counts[i] < 4) break;
      counts[i] = 0;
      strong = join_strong(parts[i]);
      if (i + 1 == top) return strong;
    }
  }
  // A short block: groups that are not full count as they are.
  uint64_t strong = 0;
  for (size_t i = 0; i < top; ++i) {
    if (counts[i] == 0) continue;
    strong = join_strong(std::span(parts[i]).first(counts[i]));
    if (i + 1 < top) parts[i + 1][counts[i + 1]++] = strong;
  }
  return strong;
}

BlockSum block_sum(ByteView block, unsigned level) {
  return {.weak = hash::weak_sum(block), .strong = static_cast<uint32_t>(strong_sum(block, level))};
}

void append_sums(ByteView bytes, unsigned level, unsigned width, Bytes& out) {
  const size_t length = block_length_bytes(level);
  for (size_t at = 0; at < bytes.size(); at += length) {
    const ByteView block = bytes.subspan(at, std::min(length, bytes.size() - at));
    encode_sum(
        {.weak = hash::weak_sum(block),
         .strong = width > kLeastWidth ? static_cast<uint32_t>(strong_sum(block, level)) : 0},
        width, out);
  }
}

void append_sums(std::span<const BlockSum> sums, unsigned width, Bytes& out) {
  for (const BlockSum& sum : sums)
    encode_sum(sum, width, out);
}

std::vector<BlockSum> parse_sums(ByteView bytes, unsigned width) {
  std::vector<BlockSum> sums;
  sums.reserve(bytes.size() / width);
  for (size_t at = 0; at + width <= bytes.size(); at += width) {
    uint64_t value = 0;  // [sum-weak], then [sum-strong] as far as it was sent.
    for (unsigned byte = 0; byte < width; ++byte)
      value |= uint64_t{bytes[at + byte]} << (8 * byte);
    sums.push_back(
        {.weak = static_cast<uint32_t>(value), .strong = static_cast<uint32_t>(value >> 32)});
  }
  return sums;
}

SignatureLayout::SignatureLayout(uint64_t file_bytes, unsigned finest_level)
    : file_bytes_(file_bytes),
      finest_(finest_level),
      coarsest_(coarsest_kept_level(file_bytes, finest_level)) {
  for (unsigned level = finest_; level <= coarsest_; level += kLevelStep)
    size_bytes_ += block_count(file_bytes_, level) * sizeof(BlockSum);
}

uint64_t SignatureLayout::offset_of(unsigned level, uint64_t block) const {
  uint64_t offset = block * sizeof(BlockSum);
  for (unsigned finer = finest_; finer < level; finer += kLevelStep)
    offset += block_count(file_bytes_, finer) * sizeof(BlockSum);
  return offset;
}

void SignatureBuilder::begin(const SignatureLayout& layout, Sink sink) {
  layout_ = layout;
  sink_ = std::move(sink);
  status_ = {};
  partial_.clear();
  for (Level& level : levels_) {
    level.part_count = 0;
    level.weak = 0;
    level.length_bytes = 0;
    level.run.clear();
    level.run_first = 0;
  }
}

Status SignatureBuilder::update(ByteView bytes) {
  if (!partial_.empty()) {
    const size_t part = std::min(kLeafBytes - partial_.size(), bytes.size());
    partial_.insert(partial_.end(), bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(part));
    bytes = bytes.subspan(part);
    if (partial_.size() < kLeafBytes) return status_;
    add_leaf(partial_);
    partial_.clear();
  }
  while (bytes.size() >= kLeafBytes) {
    add_leaf(bytes.first(kLeafBytes));
    bytes = bytes.subspan(kLeafBytes);
  }
  partial_.assign(bytes.begin(), bytes.end());
  return status_;
}

Status SignatureBuilder::finish() {
  if (!partial_.empty()) {
    add_leaf(partial_);
    partial_.clear();
  }
  // Blocks that the file's end has cut short, finest first: each is a part of the next.
  for (unsigned level = kLeafLevel + kLevelStep; level <= layout_.coarsest_level();
       level += kLevelStep) {
    if (at(level).part_count > 0) add_block(level, take_block(level));
  }
  for (unsigned level = layout_.finest_level(); level <= layout_.coarsest_level();
       level += kLevelStep) {
    hand_on(level);
  }
  return status_;
}

void SignatureBuilder::add_leaf(ByteView leaf) {
  add_block(
      kLeafLevel,
      {.strong = hash::xxh64(leaf), .weak = hash::weak_sum(leaf), .length_bytes = leaf.size()});
}

// A block is known: its sum goes out, and it becomes a part of the next level's; and so on upwards
// while that makes a whole block.
void SignatureBuilder::add_block(unsigned level, Block block) {
  for (;; level += kLevelStep) {
    if (layout_.has_level(level)) {
      Level& here = at(level);
      here.run.push_back({.weak = block.weak, .strong = static_cast<uint32_t>(block.strong)});
      if (here.run.size() == kRunSums) hand_on(level);
    }
    if (level >= layout_.coarsest_level()) return;
    Level& next = at(level + kLevelStep);
    next.parts[next.part_count++] = block.strong;
    next.weak = hash::weak_join(next.weak, block.weak, power_of(level, block.length_bytes));
    next.length_bytes += block.length_bytes;
    if (next.part_count < next.parts.size()) return;
    block = take_block(level + kLevelStep);
  }
}

SignatureBuilder::Block SignatureBuilder::take_block(unsigned level) {
  Level& here = at(level);
  const Block block{.strong = join_strong(std::span(here.parts).first(here.part_count)),
                    .weak = here.weak,
                    .length_bytes = here.length_bytes};
  here.part_count = 0;
  here.weak = 0;
  here.length_bytes = 0;
  return block;
}

void SignatureBuilder::hand_on(unsigned level) {
  Level& here = at(level);
  if (status_ && !here.run.empty()) status_ = sink_(level, here.run_first, here.run);
  here.run_first += here.run.size();
  here.run.clear();
}

}  // namespace superlifter::delta
