// Signatures: golden sums, the definition as the oracle, and a builder that gives the same however
// its bytes come.
#include "core/delta/signature.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "core/hash/digest.h"
#include "core/hash/rolling.h"
#include "tests/core/delta/memory_files.h"

namespace superlifter::delta {
namespace {

constexpr uint64_t kEverything = UINT64_MAX;

// Strong checksums of a file's blocks by the definition in signature.h, the slow and clear way.
std::vector<uint64_t> strong_oracle(ByteView bytes, unsigned level) {
  const unsigned leaf = std::min(level, kLeafLevel);
  std::vector<uint64_t> sums;
  for (size_t at = 0; at < bytes.size(); at += block_length_bytes(leaf))
    sums.push_back(hash::xxh64(
        bytes.subspan(at, std::min<size_t>(block_length_bytes(leaf), bytes.size() - at))));
  for (unsigned at_level = leaf; at_level < level; at_level += kLevelStep) {
    std::vector<uint64_t> coarser;
    for (size_t i = 0; i < sums.size(); i += 4) {
      Bytes parts;
      for (size_t part = i; part < std::min(i + 4, sums.size()); ++part) {
        for (unsigned byte = 0; byte < 8; ++byte)
          parts.push_back(static_cast<uint8_t>(sums[part] >> (8 * byte)));
      }
      coarser.push_back(hash::xxh64(parts));
    }
    sums = std::move(coarser);
  }
  return sums;
}

std::vector<BlockSum> sums_oracle(ByteView bytes, unsigned level) {
  const std::vector<uint64_t> strong = strong_oracle(bytes, level);
  std::vector<BlockSum> out;
  for (size_t i = 0; i < strong.size(); ++i) {
    const size_t at = i * block_length_bytes(level);
    const ByteView block =
        bytes.subspan(at, std::min<size_t>(block_length_bytes(level), bytes.size() - at));
    out.push_back({.weak = hash::weak_sum(block), .strong = static_cast<uint32_t>(strong[i])});
  }
  return out;
}

// Takes what a builder hands on, and sees that it comes in order.
struct Collector {
  std::map<unsigned, std::vector<BlockSum>> levels;
  uint64_t fail_at = kEverything;  // After so many runs.
  uint64_t runs = 0;

  SignatureBuilder::Sink sink() {
    return [this](unsigned level, uint64_t first, std::span<const BlockSum> sums) -> Status {
      if (runs++ >= fail_at) return fail(Errc::kIo, "full");
      std::vector<BlockSum>& level_sums = levels[level];
      EXPECT_EQ(first, level_sums.size());
      EXPECT_FALSE(sums.empty());
      level_sums.insert(level_sums.end(), sums.begin(), sums.end());
      return {};
    };
  }
};

void expect_built(SignatureBuilder& builder, ByteView bytes, unsigned finest, size_t piece) {
  const SignatureLayout layout(bytes.size(), finest);
  Collector collector;
  builder.begin(layout, collector.sink());
  for (size_t at = 0; at < bytes.size(); at += piece)
    ASSERT_TRUE(builder.update(bytes.subspan(at, std::min(piece, bytes.size() - at))));
  ASSERT_TRUE(builder.finish());
  uint64_t total = 0;
  for (const auto& [level, sums] : collector.levels) {
    ASSERT_TRUE(layout.has_level(level));
    ASSERT_EQ(sums, sums_oracle(bytes, level))
        << "level " << level << ", " << bytes.size() << " bytes in pieces of " << piece;
    total += sums.size() * sizeof(BlockSum);
  }
  ASSERT_EQ(total, layout.size_bytes());
}

// Computed apart from this code, with libxxhash; the wire depends on them.
TEST(BlockSum, HasTheseGoldenValues) {
  Bytes bytes(70'000);
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<uint8_t>(i * 31 + i / 256);
  struct Golden {
    unsigned level = 0;
    size_t size = 0;
    uint32_t weak = 0;
    uint64_t strong = 0;
  };
  for (const Golden& golden : std::initializer_list<Golden>{
           {6, 64, 0xCF3F'5720, 0xEF54'26B3'1747'DB78},
           {6, 1, 0x0000'0000, 0xC44B'DFF4'074E'ECDB},
           {8, 256, 0xE1AD'9B80, 0xCDD3'578B'9DF4'5E59},
           {10, 1024, 0x6896'0A00, 0x5A18'93ED'FFA2'577C},
           {10, 1000, 0x1B90'3D7C, 0x0DC5'4DA2'1822'85F1},
           {12, 4096, 0xBCE3'E800, 0x9731'C40C'3088'9AF5},
           {12, 1025, 0xF778'6204, 0x903A'F4C0'E839'F700},
           {12, 1000, 0x1B90'3D7C, 0x57D3'C914'487E'CA54},
           {14, 16384, 0xFE1B'A000, 0x840D'CCAE'7DEB'0C91},
           {14, 9999, 0x0BE8'54E0, 0xD339'813E'631F'2A3B},
           {16, 65536, 0x082E'8000, 0xEA63'F687'CD19'624C},
           {18, 70000, 0xD615'7188, 0x7F3F'66DB'8386'11CB},
           {28, 70000, 0xD615'7188, 0x70FC'27E7'1FC6'436D},
       }) {
    const ByteView block = ByteView(bytes).first(golden.size);
    EXPECT_EQ(strong_sum(block, golden.level), golden.strong) << golden.level << " " << golden.size;
    const BlockSum sum = block_sum(block, golden.level);
    EXPECT_EQ(sum.weak, golden.weak) << golden.level << " " << golden.size;
    EXPECT_EQ(sum.strong, static_cast<uint32_t>(golden.strong));
  }
}

TEST(BlockSum, FollowsItsDefinitionAtEachLevel) {
  const Bytes bytes = noise(1, 300'000);
  for (unsigned level = kFinestLevel; level <= 20; level += kLevelStep) {
    for (const size_t size :
         {1U,    63U,   64U,   65U,     255U,    256U,    1023U,   1024U,    1025U,    2048U,
          3073U, 4096U, 4097U, 16'384U, 16'385U, 65'535U, 65'536U, 262'143U, 262'144U, 300'000U}) {
      if (size > block_length_bytes(level)) continue;
      const ByteView block = ByteView(bytes).first(size);
      EXPECT_EQ(strong_sum(block, level), strong_oracle(block, level).at(0))
          << level << " " << size;
    }
  }
}

TEST(BlockSum, OfASingleLeafDiffersFromTheLeafsOwn) {
  // A short block of a coarser level is the checksum of a checksum, as its definition says.
  const Bytes bytes = noise(2, 1000);
  EXPECT_EQ(strong_sum(bytes, 6), hash::xxh64(bytes));
  EXPECT_EQ(strong_sum(bytes, 10), hash::xxh64(bytes));
  EXPECT_NE(strong_sum(bytes, 12), hash::xxh64(bytes));
  EXPECT_NE(strong_sum(bytes, 14), strong_sum(bytes, 12));
}

TEST(Sums, AreAppendedAndParsedAtEachWidth) {
  const Bytes bytes = noise(3, 10'000);
  for (unsigned level = kFinestLevel; level <= 14; level += kLevelStep) {
    const std::vector<BlockSum> expected = sums_oracle(bytes, level);
    for (unsigned width = kLeastWidth; width <= kMostWidth; ++width) {
      Bytes from_bytes{0xAA};  // Appended to what is there.
      append_sums(bytes, level, width, from_bytes);
      ASSERT_EQ(from_bytes.size(), 1 + expected.size() * width);
      ASSERT_EQ(from_bytes[0], 0xAA);
      Bytes from_sums{0xAA};
      append_sums(expected, width, from_sums);
      ASSERT_EQ(from_bytes, from_sums) << level << " " << width;
      const std::vector<BlockSum> parsed = parse_sums(ByteView(from_sums).subspan(1), width);
      ASSERT_EQ(parsed.size(), expected.size());
      for (size_t i = 0; i < parsed.size(); ++i)
        ASSERT_EQ(parsed[i], cut(expected[i], width)) << level << " " << width << " " << i;
    }
  }
}

TEST(Sums, AreCutToTheirLowestBytes) {
  const BlockSum sum{.weak = 0x0403'0201, .strong = 0x0807'0605};
  EXPECT_EQ(cut(sum, 8), sum);
  EXPECT_EQ(cut(sum, 7), (BlockSum{.weak = 0x0403'0201, .strong = 0x0007'0605}));
  EXPECT_EQ(cut(sum, 5), (BlockSum{.weak = 0x0403'0201, .strong = 5}));
  EXPECT_EQ(cut(sum, 4), (BlockSum{.weak = 0x0403'0201, .strong = 0}));
  Bytes out;
  append_sums(std::span(&sum, 1), 6, out);
  EXPECT_EQ(out, (Bytes{1, 2, 3, 4, 5, 6}));
  EXPECT_TRUE(parse_sums({}, 8).empty());
}

TEST(Levels, HaveBoundsAndSteps) {
  for (unsigned level = 0; level < 40; ++level)
    EXPECT_EQ(is_level(level), level % 2 == 0 && level >= 6 && level <= 28) << level;
  EXPECT_EQ(block_length_bytes(6), 64U);
  EXPECT_EQ(block_length_bytes(28), 256U << 20);
  for (unsigned level = kFinestLevel; level <= kCoarsestLevel; level += kLevelStep) {
    const uint64_t length = block_length_bytes(level);
    EXPECT_EQ(block_count(0, level), 0U);
    EXPECT_EQ(block_count(1, level), 1U);
    EXPECT_EQ(block_count(length, level), 1U);
    EXPECT_EQ(block_count(length + 1, level), 2U);
    EXPECT_EQ(block_count(UINT64_MAX, level), uint64_t{1} << (64 - level));
  }
}

TEST(Levels, KeptOnesEndWithEightBlocks) {
  EXPECT_EQ(coarsest_kept_level(0, 10), 10U);
  EXPECT_EQ(coarsest_kept_level((8 << 12) - 1, 10), 10U);
  EXPECT_EQ(coarsest_kept_level(8 << 12, 10), 12U);
  EXPECT_EQ(coarsest_kept_level((8 << 14) - 1, 10), 12U);
  EXPECT_EQ(coarsest_kept_level(8 << 14, 12), 14U);
  EXPECT_EQ(coarsest_kept_level(8 << 14, 16), 16U);
  EXPECT_EQ(coarsest_kept_level(UINT64_MAX, 10), kCoarsestLevel);
}

TEST(SignatureLayout, PutsLevelsSideBySideFinestFirst) {
  const uint64_t file_bytes = (1 << 20) + 1;  // 1025 blocks, then 257, 65, 17.
  const SignatureLayout layout(file_bytes, 10);
  EXPECT_EQ(layout.finest_level(), 10U);
  EXPECT_EQ(layout.coarsest_level(), 16U);
  EXPECT_EQ(layout.offset_of(10, 0), 0U);
  EXPECT_EQ(layout.offset_of(10, 1024), 8 * 1024U);
  EXPECT_EQ(layout.offset_of(12, 0), 8 * 1025U);
  EXPECT_EQ(layout.offset_of(14, 3), 8 * (1025 + 257 + 3U));
  EXPECT_EQ(layout.offset_of(16, 16), 8 * (1025 + 257 + 65 + 16U));
  EXPECT_EQ(layout.size_bytes(), 8 * (1025 + 257 + 65 + 17U));
  EXPECT_FALSE(layout.has_level(8));
  EXPECT_FALSE(layout.has_level(11));
  EXPECT_FALSE(layout.has_level(18));
  EXPECT_FALSE(layout.has_level(40));
  const SignatureLayout coarser(file_bytes, 14);
  EXPECT_EQ(coarser.offset_of(16, 0), 8 * 65U);
  EXPECT_FALSE(coarser.has_level(12));
}

TEST(SignatureLayout, HasNoLevelsUntilItIsMadeOfAFile) {
  const SignatureLayout none;
  for (unsigned level = 0; level < 40; ++level)
    EXPECT_FALSE(none.has_level(level));
  EXPECT_EQ(none.size_bytes(), 0U);
}

// Sizes that a damaged catalog may claim: no overflow, and within 4/3 of the finest level.
TEST(SignatureLayout, ComputesWithAnySize) {
  for (const uint64_t size : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 40, UINT64_MAX}) {
    for (unsigned level = kLeafLevel; level <= kCoarsestLevel; level += kLevelStep) {
      const SignatureLayout layout(size, level);
      const uint64_t finest = block_count(size, level) * sizeof(BlockSum);
      EXPECT_GE(layout.size_bytes(), finest);
      EXPECT_LE(layout.size_bytes(), finest + finest / 3 + 16 * sizeof(BlockSum));
    }
  }
}

TEST(SignatureBuilder, GivesTheSameHoweverTheBytesCome) {
  SignatureBuilder builder;  // One for all, as the indexer has it.
  const Bytes bytes = noise(4, 600'000);
  for (const size_t size : {1U, 1023U, 1024U, 1025U, 2048U, 4095U, 4097U, 32'768U, 50'001U,
                            131'072U, 131'073U, 600'000U}) {
    for (const size_t piece :
         {size_t{64} << 10, size_t{1} << 20, size_t{1024}, size_t{1023}, size_t{4097}})
      expect_built(builder, ByteView(bytes).first(size), kLeafLevel, piece);
  }
  for (size_t piece = 1; piece < 1100; piece += 2)
    expect_built(builder, ByteView(bytes).first(5000), kLeafLevel, piece);
}

TEST(SignatureBuilder, StartsAtAnyFinestLevel) {
  SignatureBuilder builder;
  const Bytes bytes = noise(5, (1 << 20) + 777);
  for (unsigned finest = kLeafLevel; finest <= 22; finest += kLevelStep)
    expect_built(builder, bytes, finest, 10'007);
}

// More sums than are handed on together.
TEST(SignatureBuilder, HandsOnLongSignaturesInRuns) {
  SignatureBuilder builder;
  expect_built(builder, noise(6, (20 << 20) + 1), kLeafLevel, 1 << 20);
}

TEST(SignatureBuilder, MakesNothingOfAnEmptyFile) {
  SignatureBuilder builder;
  Collector collector;
  builder.begin(SignatureLayout(0, kLeafLevel), collector.sink());
  EXPECT_TRUE(builder.update({}));
  EXPECT_TRUE(builder.finish());
  EXPECT_TRUE(collector.levels.empty());
}

TEST(SignatureBuilder, ReturnsTheSinksFailureFromThenOn) {
  SignatureBuilder builder;
  const Bytes bytes = noise(7, 20 << 20);
  Collector collector;
  collector.fail_at = 2;
  builder.begin(SignatureLayout(bytes.size(), kLeafLevel), collector.sink());
  bool failed = false;
  for (size_t at = 0; at < bytes.size(); at += 1 << 20) {
    const Status status = builder.update(ByteView(bytes).subspan(at, 1 << 20));
    EXPECT_TRUE(!failed || !status);
    failed = failed || !status;
  }
  EXPECT_TRUE(failed);
  const Status finished = builder.finish();
  ASSERT_FALSE(finished);
  EXPECT_EQ(finished.error().message, "full");
  EXPECT_EQ(collector.runs, 3U);  // Not asked again.
  // And is forgotten with the next file.
  expect_built(builder, ByteView(bytes).first(100'000), kLeafLevel, 5000);
}

TEST(SignatureBuilder, ForgetsAFileThatWasNotFinished) {
  SignatureBuilder builder;
  const Bytes bytes = noise(8, 100'000);
  Collector unused;
  builder.begin(SignatureLayout(bytes.size(), kLeafLevel), unused.sink());
  ASSERT_TRUE(builder.update(ByteView(bytes).first(33'333)));
  expect_built(builder, bytes, kLeafLevel, 5000);
}

}  // namespace
}  // namespace superlifter::delta
