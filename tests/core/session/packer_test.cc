#include "core/session/packer.h"

#include <gtest/gtest.h>
#include <zstd.h>

#include <string>

#include "core/base/limits.h"
#include "tests/core/session/driver.h"

namespace superlifter::session {
namespace {

Bytes bytes_of(const std::string& text) {
  return {text.begin(), text.end()};
}

TEST(Packer, MakesOneFrameThatStatesItsContent) {
  Packer packer;
  for (const size_t size : {size_t{100}, size_t{5000}, kPackBytes, kMaxPackedBytes}) {
    const std::string text = text_of(size);
    const ByteView packed = packer.pack(bytes_of(text));
    ASSERT_FALSE(packed.empty()) << size;
    EXPECT_EQ(ZSTD_getFrameContentSize(packed.data(), packed.size()), size);
    EXPECT_EQ(ZSTD_findFrameCompressedSize(packed.data(), packed.size()), packed.size());
    std::string back(size, '\0');
    EXPECT_EQ(ZSTD_decompress(back.data(), size, packed.data(), packed.size()), size);
    EXPECT_EQ(back, text);
  }
}

TEST(Packer, GivesNothingWhereNextToNothingIsSaved) {
  Packer packer;
  EXPECT_TRUE(packer.pack({}).empty());
  EXPECT_TRUE(packer.pack(bytes_of("short")).empty());
  EXPECT_TRUE(packer.pack(bytes_of(noise_of(kPackBytes))).empty());
  // Noise with some text behind it, from none to all of it.
  size_t most = 0;
  for (size_t text = 0; text <= 16'000; text += 50) {
    const ByteView packed = packer.pack(bytes_of(noise_of(16'000 - text) + text_of(text)));
    most = std::max(most, packed.size());
    EXPECT_LE(packed.size() + kFrameHeaderBytes, 16'000U - 16'000U / 128) << text;
  }
  EXPECT_GT(most, 15'700U);
}

TEST(PackerDeathTest, TakesNoMoreThanTheProtocolAllows) {
  Packer packer;
  EXPECT_DEATH(packer.pack(Bytes(kMaxPackedBytes + 1)), "");
}

TEST(PackedRun, HoldsFramesUntilThereAreEnough) {
  Packer packer;
  PackedRun run(9, &packer);
  Outbox outbox;
  size_t added = 0;
  while (outbox.empty()) {
    ASSERT_LT(added, kPackBytes + kSmallFileBytes);
    run.add(wire::Type::kData, wire::kItemEnd, bytes_of(text_of(5000)), outbox);
    added += 5000 + kFrameHeaderBytes;
  }
  EXPECT_GE(added, kPackBytes);
  EXPECT_LT(outbox.queued_bytes(), added / 2);
}

// Noise goes by untried in runs that grow; after text everything is tried again.
TEST(PackedRun, TriesNoiseEverMoreRarely) {
  Packer packer;
  PackedRun run(9, &packer);
  Outbox outbox;
  EXPECT_EQ(run.appetite_bytes(), kPackBytes);
  unsigned seed = 0;  // The same noise twice would compress.
  uint64_t tried = 0;
  uint64_t passed = 0;
  for (int round = 0; round < 8; ++round) {
    while (run.appetite_bytes() > 0) {
      run.add(wire::Type::kData, 0, bytes_of(noise_of(kProbeBytes, ++seed)), outbox);
      tried += kProbeBytes;
    }
    EXPECT_LE(run.plain_bytes(), kMostPlainBytes);
    passed += run.plain_bytes();
    while (run.appetite_bytes() == 0)
      run.add(wire::Type::kData, 0, bytes_of(noise_of(kProbeBytes, ++seed)), outbox);
    EXPECT_EQ(run.appetite_bytes(), kProbeBytes);
  }
  EXPECT_EQ(tried, kPackBytes + 7 * kProbeBytes);
  EXPECT_EQ(passed, kPackBytes * (1 + 2 + 4 + 8 + 16 + 16 + 16 + 16));
  run.add(wire::Type::kData, 0, bytes_of(text_of(kProbeBytes)), outbox);
  EXPECT_EQ(run.appetite_bytes(), kPackBytes);
}

TEST(PackedRun, WithoutAPackerEverythingGoesThroughAtOnce) {
  PackedRun run(9, nullptr);
  Outbox outbox;
  run.add(wire::Type::kData, 0, bytes_of("text text text"), outbox);
  EXPECT_EQ(outbox.queued_bytes(), kFrameHeaderBytes + 14);
  run.add_status({.index = 1, .status = wire::Code::kStale}, outbox);
  EXPECT_EQ(outbox.queued_bytes(), 2 * kFrameHeaderBytes + 14 + 6);
  EXPECT_EQ(run.appetite_bytes(), 0U);
  EXPECT_EQ(run.plain_bytes(), UINT64_MAX);
}

}  // namespace
}  // namespace superlifter::session
