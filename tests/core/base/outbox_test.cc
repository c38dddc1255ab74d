#include "core/base/outbox.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace superlifter {
namespace {

Bytes bytes_of(std::string_view text) {
  return {text.begin(), text.end()};
}

FileRange range_of(uint64_t offset, uint64_t length_bytes) {
  return {.file = std::make_shared<OpenFile>(), .offset = offset, .length_bytes = length_bytes};
}

TEST(Outbox, CountsWhatWaitsAndWhatLeft) {
  Outbox outbox;
  EXPECT_TRUE(outbox.empty());
  outbox.push(bytes_of("hello"));
  outbox.push(range_of(100, 50));
  EXPECT_EQ(outbox.queued_bytes(), 55U);
  EXPECT_EQ(outbox.pushed_position(), 55U);
  EXPECT_EQ(outbox.left_position(), 0U);
  outbox.consume(7);
  EXPECT_EQ(outbox.queued_bytes(), 48U);
  EXPECT_EQ(outbox.pushed_position(), 55U);
  EXPECT_EQ(outbox.left_position(), 7U);
  outbox.consume(48);
  EXPECT_TRUE(outbox.empty());
  EXPECT_EQ(outbox.left_position(), 55U);
}

TEST(Outbox, DropsEmptyPieces) {
  Outbox outbox;
  outbox.push(Bytes());
  outbox.push(range_of(5, 0));
  EXPECT_TRUE(outbox.empty());
  EXPECT_EQ(outbox.pushed_position(), 0U);
}

TEST(Outbox, ConsumingPartOfBytesKeepsTheRest) {
  Outbox outbox;
  outbox.push(bytes_of("hello"));
  outbox.consume(2);
  ASSERT_EQ(outbox.items().size(), 1U);
  const OutItem& item = outbox.items().front();
  EXPECT_FALSE(item.is_range());
  EXPECT_EQ(item.sent, 2U);
  EXPECT_EQ(item.size_bytes(), 3U);
}

TEST(Outbox, ConsumingPartOfARangeMovesItsOffset) {
  Outbox outbox;
  outbox.push(range_of(100, 50));
  outbox.consume(20);
  ASSERT_EQ(outbox.items().size(), 1U);
  const OutItem& item = outbox.items().front();
  EXPECT_TRUE(item.is_range());
  EXPECT_EQ(item.range.offset, 120U);
  EXPECT_EQ(item.range.length_bytes, 30U);
}

TEST(Outbox, ConsumingNothingChangesNothing) {
  Outbox outbox;
  outbox.consume(0);
  outbox.push(bytes_of("a"));
  outbox.consume(0);
  EXPECT_EQ(outbox.queued_bytes(), 1U);
}

TEST(Outbox, LetsGoOfAFileThatHasLeft) {
  Outbox outbox;
  const auto file = std::make_shared<OpenFile>();
  outbox.push(FileRange{.file = file, .offset = 0, .length_bytes = 10});
  EXPECT_EQ(file.use_count(), 2);
  outbox.consume(9);
  EXPECT_EQ(file.use_count(), 2);
  outbox.consume(1);
  EXPECT_EQ(file.use_count(), 1);
}

TEST(OutboxDeathTest, ConsumingMoreThanWaitsIsABug) {
  Outbox outbox;
  outbox.push(bytes_of("abc"));
  EXPECT_DEATH(outbox.consume(4), "CHECK failed");
}

TEST(Outbox, AnySplitKeepsTheOrderOfBytes) {
  constexpr uint64_t kSeed = 99;
  SCOPED_TRACE(kSeed);
  std::mt19937_64 random(kSeed);
  for (int round = 0; round < 200; ++round) {
    Outbox outbox;
    std::string expected;
    std::string got;
    for (int i = 0; i < 10; ++i) {
      const std::string piece(random() % 20, static_cast<char>('a' + i));
      expected += piece;
      outbox.push(bytes_of(piece));
    }
    while (!outbox.empty()) {
      const uint64_t count = 1 + random() % outbox.queued_bytes();
      std::string waiting;
      for (const OutItem& item : outbox.items()) {
        waiting += as_text(ByteView(item.bytes).subspan(item.sent));
      }
      got += waiting.substr(0, count);
      outbox.consume(count);
    }
    ASSERT_EQ(got, expected);
  }
}

}  // namespace
}  // namespace superlifter
