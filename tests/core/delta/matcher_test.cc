#include "core/delta/matcher.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

#include "core/hash/rolling.h"
#include "tests/core/delta/memory_files.h"

namespace superlifter::delta {
namespace {

// The whole blocks of a target.
BlockTable table_of(ByteView target, unsigned level, unsigned width = kMostWidth) {
  BlockTable table(level, width);
  const size_t length = block_length_bytes(level);
  for (size_t at = 0; at + length <= target.size(); at += length)
    table.add(at >> level, block_sum(target.subspan(at, length), level));
  table.seal();
  return table;
}

std::vector<Match> search_all(const BlockTable& table, MemoryBasis& basis) {
  std::vector<Match> out;
  search(table, basis.reader(), basis.size(), {0, basis.size()}, out);
  return out;
}

std::vector<Match> search_all(const BlockTable& table, ByteView bytes) {
  MemoryBasis basis(bytes);
  return search_all(table, basis);
}

// Blocks that were found; and each is where the match says.
std::set<uint64_t> check_blocks(const std::vector<Match>& matches, const Bytes& target,
                                const Bytes& basis, unsigned level) {
  std::set<uint64_t> blocks;
  const size_t length = block_length_bytes(level);
  for (const Match& match : matches) {
    EXPECT_LE(match.basis_offset + length, basis.size());
    EXPECT_TRUE(slice(target, match.block << level, length) ==
                slice(basis, match.basis_offset, length));
    blocks.insert(match.block);
  }
  return blocks;
}

std::set<uint64_t> numbers(uint64_t count) {
  std::set<uint64_t> out;
  for (uint64_t i = 0; i < count; ++i)
    out.insert(i);
  return out;
}

// --- BlockTable ---------------------------------------------------------------------------------

TEST(BlockTable, FindsBlocksByNumber) {
  BlockTable table(10, kMostWidth);
  table.add(3, {.weak = 1, .strong = 1});
  table.add(4, {.weak = 1, .strong = 1});
  table.add(9, {.weak = 2, .strong = 1});
  table.seal();
  EXPECT_EQ(table.size(), 3U);
  EXPECT_EQ(table.find_block(3), 0U);
  EXPECT_EQ(table.find_block(9), 2U);
  for (const uint64_t missing : {0, 2, 5, 8, 10})
    EXPECT_EQ(table.find_block(missing), table.size()) << missing;
  EXPECT_EQ(table.block_at(1), 4U);
}

TEST(BlockTable, WithoutBlocksFindsNothing) {
  BlockTable table(6, kMostWidth);
  table.seal();
  const Bytes bytes = noise(1, 64);
  EXPECT_EQ(table.find(hash::weak_sum(bytes), bytes, 0), table.size());
  EXPECT_TRUE(search_all(table, noise(1, 1000)).empty());
}

TEST(BlockTable, KnowsItsBlocksAtEveryLevelAndWidth) {
  for (unsigned level = 6; level <= 16; level += 2) {
    const size_t length = block_length_bytes(level);
    const Bytes target = noise(level, 5 * length);
    for (unsigned width = kLeastWidth; width <= kMostWidth; ++width) {
      const BlockTable table = table_of(target, level, width);
      for (size_t i = 0; i < table.size(); ++i) {
        const Bytes block = slice(target, i * length, length);
        const Bytes other = slice(target, i * length + (i == 4 ? 0 : 1), length);
        EXPECT_TRUE(table.is_block(i, block));
        EXPECT_TRUE(table.may_have(hash::weak_sum(block)));
        EXPECT_EQ(table.find(hash::weak_sum(block), block, 0), i) << level << " " << width;
        if (i < 4) {
          EXPECT_FALSE(table.is_block(i, other));
        }
      }
    }
  }
}

TEST(BlockTable, FindsOfEqualBlocksTheNextBehindTheLast) {
  const Bytes one = noise(1, 1024);
  const Bytes two = noise(2, 1024);
  const BlockTable table = table_of(one + two + one + two + one, 10);
  const uint32_t weak = hash::weak_sum(one);
  EXPECT_EQ(table.find(weak, one, 0), 2U);  // Behind block 0.
  EXPECT_EQ(table.find(weak, one, 1), 2U);
  EXPECT_EQ(table.find(weak, one, 2), 4U);
  EXPECT_EQ(table.find(weak, one, 4), 0U);  // None behind it: the first.
}

TEST(BlockTable, FillsBlocksThatEqualAFoundOne) {
  const Bytes one = noise(1, 1024);
  const Bytes two = noise(2, 1024);
  const BlockTable table = table_of(one + two + one + two + one, 10);
  std::map<uint64_t, uint64_t> filled;
  const auto fill = [&](uint64_t block, uint64_t basis_offset) {
    EXPECT_TRUE(filled.emplace(block, basis_offset).second);
  };
  table.fill_equals({}, fill);
  EXPECT_TRUE(filled.empty());
  const std::vector<Match> matches = {{.block = 2, .basis_offset = 700},
                                      {.block = 4, .basis_offset = 300}};
  table.fill_equals(matches, fill);
  EXPECT_EQ(filled, (std::map<uint64_t, uint64_t>{{0, 300}}));
}

TEST(BlockTable, TriesFewOfManyValuesWithOneWeakSum) {
  const Bytes block = noise(7, 1024);
  const BlockSum right = block_sum(block, 10);
  // Values are tried by ascending strong sum: the right one has so many before it.
  for (const uint32_t before : {0U, 7U, 8U, 1000U}) {
    BlockTable table(10, kMostWidth);
    uint64_t number = 0;
    for (uint32_t i = 0; i < before; ++i)
      table.add(number++, {.weak = right.weak, .strong = i});
    table.add(number, right);
    table.seal();
    ASSERT_GT(right.strong, 1000U);
    EXPECT_EQ(table.find(right.weak, block, 0), before < 8 ? before : table.size()) << before;
  }
}

TEST(BlockTable, GivesUpAValueThatOnlyEverMatchesWeakly) {
  const Bytes block = noise(7, 1024);
  const BlockSum right = block_sum(block, 10);
  // As often as a value may deceive, and once more. The other block only lends its weak sum.
  for (const unsigned deceptions : {63U, 64U}) {
    BlockTable table(10, kMostWidth);
    table.add(0, right);
    table.seal();
    const Bytes other = noise(8, 1024);
    for (unsigned i = 0; i < deceptions; ++i)
      EXPECT_EQ(table.find(right.weak, other, 0), table.size());
    EXPECT_EQ(table.find(right.weak, block, 0), deceptions < 64 ? 0U : table.size());
  }
}

TEST(BlockTableDeathTest, RefusesBlocksOutOfOrder) {
  BlockTable table(10, kMostWidth);
  table.add(5, {});
  EXPECT_DEATH(table.add(5, {}), "CHECK failed");
}

// --- Matcher ------------------------------------------------------------------------------------

TEST(Matcher, FindsAllBlocksOfAnEqualBasis) {
  for (unsigned level = 6; level <= 16; level += 2) {
    for (unsigned width = kLeastWidth; width <= kMostWidth; ++width) {
      const size_t length = block_length_bytes(level);
      const Bytes target = noise(level, 20 * length);
      const std::vector<Match> matches = search_all(table_of(target, level, width), target);
      ASSERT_EQ(matches.size(), 20U) << level << " " << width;
      for (uint64_t i = 0; i < 20; ++i)
        EXPECT_EQ(matches[i], (Match{.block = i, .basis_offset = i * length}));
    }
  }
}

TEST(Matcher, FindsBlocksAtEveryShift) {
  const Bytes target = noise(1, 8 * 256);
  const BlockTable table = table_of(target, 8);
  for (size_t shift = 0; shift <= 520; ++shift) {
    const Bytes basis = noise(2, shift) + target + noise(3, 520 - shift);
    EXPECT_EQ(check_blocks(search_all(table, basis), target, basis, 8), numbers(8)) << shift;
  }
}

TEST(Matcher, FindsBlocksAroundWindowBorders) {
  // The matcher's window is of 1 MiB: a block at each of many places around its end.
  constexpr size_t kBorder = 1 << 20;
  for (const unsigned level : {6U, 10U, 12U}) {
    const size_t length = block_length_bytes(level);
    const Bytes target = noise(level, length);
    const BlockTable table = table_of(target, level);
    const Bytes around = noise(9, 2 * kBorder + 3 * length);
    for (const size_t place :
         {kBorder - length - 1, kBorder - length, kBorder - length + 1, kBorder - length / 2,
          kBorder - 1, kBorder, kBorder + 1, kBorder + length - 1, kBorder + length,
          kBorder + length + 1, 2 * kBorder, around.size() - length}) {
      Bytes basis = around;
      std::copy(target.begin(), target.end(), basis.begin() + static_cast<ptrdiff_t>(place));
      EXPECT_EQ(search_all(table, basis), (std::vector<Match>{{0, place}})) << level;
    }
  }
}

TEST(Matcher, FindsBlocksInReversedOrder) {
  const Bytes target = noise(1, 50 * 1024);
  Bytes basis;
  for (size_t i = 50; i-- > 0;)
    basis = std::move(basis) + slice(target, i * 1024, 1024);
  EXPECT_EQ(check_blocks(search_all(table_of(target, 10), basis), target, basis, 10), numbers(50));
}

TEST(Matcher, PassesBlocksThatChangedInPlace) {
  const Bytes target = noise(1, 40 * 1024);
  Bytes basis = target;
  for (const size_t block : {3, 10, 11, 20, 21, 22, 30, 31, 32, 33, 34, 35})
    basis[block * 1024 + 77] ^= 1;
  std::set<uint64_t> expected = numbers(40);
  for (const uint64_t block : {3, 10, 11, 20, 21, 22, 30, 31, 32, 33, 34, 35})
    expected.erase(block);
  EXPECT_EQ(check_blocks(search_all(table_of(target, 10), basis), target, basis, 10), expected);
}

TEST(Matcher, FindsBlocksAcrossPartBorders) {
  const Bytes target = noise(1, 64 * 1024);
  const Bytes basis = noise(2, 333) + target;
  const BlockTable table = table_of(target, 10);
  for (const uint64_t part : {1U, 512U, 1000U, 1024U, 1025U, 4096U}) {
    MemoryBasis memory(basis);
    std::vector<Match> matches;
    for (uint64_t at = 0; at < basis.size(); at += part) {
      const uint64_t size = std::min<uint64_t>(part, basis.size() - at);
      const size_t before = matches.size();
      search(table, memory.reader(), basis.size(), {at, size}, matches);
      for (size_t i = before; i < matches.size(); ++i) {
        EXPECT_GE(matches[i].basis_offset, at);
        EXPECT_LT(matches[i].basis_offset, at + size);
      }
    }
    EXPECT_EQ(check_blocks(matches, target, basis, 10), numbers(64)) << part;
  }
}

TEST(Matcher, LooksFirstForWhatDidNotMove) {
  // Every block is equal: only the place tells them apart.
  const Bytes target(32 * 1024, 7);
  MemoryBasis memory(target);
  std::vector<Match> matches;
  search(table_of(target, 10), memory.reader(), target.size(), {16 * 1024, 16 * 1024}, matches);
  ASSERT_EQ(matches.size(), 16U);
  for (uint64_t i = 0; i < 16; ++i)
    EXPECT_EQ(matches[i], (Match{.block = 16 + i, .basis_offset = (16 + i) * 1024}));
}

TEST(Matcher, FindsNothingInABasisShorterThanABlock) {
  const Bytes target = noise(1, 1024);
  const BlockTable table = table_of(target, 10);
  EXPECT_TRUE(search_all(table, slice(target, 0, 1023)).empty());
  EXPECT_TRUE(search_all(table, Bytes{}).empty());
  EXPECT_EQ(search_all(table, target).size(), 1U);
}

TEST(Matcher, SearchesNoFurtherThanTheBasis) {
  const Bytes target = noise(1, 4 * 1024);
  MemoryBasis memory(target);
  std::vector<Match> matches;
  const BlockTable table = table_of(target, 10);
  search(table, memory.reader(), target.size(), {0, UINT64_MAX}, matches);
  EXPECT_EQ(matches.size(), 4U);
  search(table, memory.reader(), target.size(), {3 * 1024 + 1, 1 << 20}, matches);
  search(table, memory.reader(), target.size(), {1 << 20, 1 << 20}, matches);
  EXPECT_EQ(matches.size(), 4U);
}

TEST(Matcher, EndsWhereTheBasisCannotBeRead) {
  constexpr size_t kBytes = 3 << 20;
  const Bytes target = noise(1, kBytes);
  const Bytes moved = noise(2, 100) + target;
  const BlockTable table = table_of(target, 12);
  for (const Bytes* const basis : {&target, &moved}) {
    for (const uint64_t fail_from : {0UL, 1UL, 1UL << 20, (1UL << 20) + 5000, 2UL << 20}) {
      MemoryBasis memory(*basis);
      memory.fail_from(fail_from);
      const std::vector<Match> matches = search_all(table, memory);
      check_blocks(matches, target, *basis, 12);
      for (const Match& match : matches)
        EXPECT_LE(match.basis_offset + 4096, fail_from);
      EXPECT_EQ(memory.reads() > 3, false) << "read on after a failure";
    }
  }
}

// Fails once, in the middle of passing changed blocks, and would go on with what the failed read
// left behind.
TEST(Matcher, UsesNothingOfAFailedRead) {
  constexpr size_t kLength = 1 << 16;
  Bytes target = noise(1, 40 * kLength);
  // A block that equals what a failed read leaves behind.
  std::fill_n(target.begin(), kLength, uint8_t{0xAA});
  Bytes basis = target;
  for (size_t block = 0; block < 40; block += 2)
    basis[block * kLength + 5] ^= 1;
  const BlockTable table = table_of(target, 16);
  for (uint64_t fail_from = 0; fail_from <= basis.size(); fail_from += kLength / 2) {
    MemoryBasis memory(basis);
    memory.fail_from(fail_from);
    check_blocks(search_all(table, memory), target, basis, 16);
  }
}

TEST(Matcher, ReadsTheBasisHardlyMoreThanOnce) {
  constexpr size_t kBytes = 4 << 20;
  const Bytes target = noise(1, kBytes);
  Bytes changed = target;
  for (size_t at = 0; at < kBytes; at += 1 << 14)
    changed[at] ^= 1;
  for (const unsigned level : {6U, 10U, 14U, 18U}) {
    const BlockTable table = table_of(target, level);
    for (const Bytes& basis : {target, changed, noise(2, 17) + target, noise(3, kBytes)}) {
      MemoryBasis memory(basis);
      search_all(table, memory);
      EXPECT_LE(memory.read_bytes(), 4 * basis.size()) << level;
    }
  }
}

// --- Hostile sums -------------------------------------------------------------------------------

// Effort is counted, not timed: bytes that are read, and strong checksums, of a block each, that
// are made in vain.
class HostileSums : public testing::TestWithParam<unsigned> {
 protected:
  static constexpr size_t kBasisBytes = 2 << 20;
  static constexpr unsigned kLevel = 16;
  static constexpr size_t kLength = size_t{1} << kLevel;
  static constexpr uint64_t kBlocks = 20'000;

  static std::vector<Match> search_counted(const BlockTable& table, const Bytes& basis,
                                           uint64_t most_false_matches) {
    MemoryBasis memory(basis);
    const uint64_t before = table.false_matches();
    std::vector<Match> matches = search_all(table, memory);
    EXPECT_LE(table.false_matches() - before, most_false_matches);
    EXPECT_LE(memory.read_bytes(), 6 * basis.size());
    EXPECT_LE(matches.size(), basis.size() / kLength);
    return matches;
  }
};

INSTANTIATE_TEST_SUITE_P(Widths, HostileSums, testing::Values(4, 5, 6, 7, 8),
                         [](const auto& about) { return std::to_string(about.param); });

TEST_P(HostileSums, OfEqualBlocksAreOneValue) {
  const Bytes zeros(kBasisBytes, 0);
  const BlockSum zero = block_sum(ByteView(zeros).first(kLength), kLevel);
  BlockTable table(kLevel, GetParam());
  for (uint64_t block = 0; block < kBlocks; ++block)
    table.add(block, zero);
  table.seal();
  EXPECT_EQ(search_counted(table, zeros, 0).size(), kBasisBytes / kLength);
  EXPECT_TRUE(search_counted(table, noise(1, kBasisBytes), 2).empty());
}

TEST_P(HostileSums, WithOneWeakAndManyStrongSumsAreSoonGivenUp) {
  const Bytes zeros(kBasisBytes, 0);  // Their weak checksum is found at every position.
  BlockTable table(kLevel, GetParam());
  std::mt19937_64 random(1);
  for (uint64_t block = 0; block < kBlocks; ++block)
    table.add(block, {.weak = 0, .strong = static_cast<uint32_t>(random())});
  table.seal();
  // Eight values that are tried, 64 times each.
  const std::vector<Match> matches = search_counted(table, zeros, uint64_t{8} * 64);
  // Four bytes hold no strong checksum: then each block is a match.
  if (GetParam() >= 7) {
    EXPECT_TRUE(matches.empty());
  }
}

TEST_P(HostileSums, ThatAgreeWeaklyAtEachPositionDeceiveOnceEach) {
  // The weak checksums of the basis itself, at many positions, with wrong strong ones.
  constexpr uint64_t kPositions = 2'000;
  const Bytes basis = noise(1, kBasisBytes);
  const hash::WeakRoller roller(kLength);
  uint32_t weak = hash::weak_sum(ByteView(basis).first(kLength));
  BlockTable table(kLevel, GetParam());
  for (uint64_t at = 0; at < kPositions; ++at) {
    table.add(at, {.weak = weak, .strong = 0x1234'5678});
    weak = roller.roll(weak, basis[at], basis[at + kLength]);
  }
  table.seal();
  search_counted(table, basis, kPositions + 8);
}

TEST_P(HostileSums, OfNoiseAreHardlyEverTried) {
  BlockTable table(kLevel, GetParam());
  std::mt19937_64 random(1);
  for (uint64_t block = 0; block < kBlocks; ++block) {
    const uint64_t sum = random();
    table.add(block,
              {.weak = static_cast<uint32_t>(sum), .strong = static_cast<uint32_t>(sum >> 32)});
  }
  table.seal();
  // 2^14 sums at 2^21 places: eight agree by chance.
  search_counted(table, Bytes(kBasisBytes, 0), 64);
  search_counted(table, noise(2, kBasisBytes), 64);
  search_counted(table, prose(3, kBasisBytes), 64);
}

}  // namespace
}  // namespace superlifter::delta
