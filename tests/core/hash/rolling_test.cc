// The weak checksum: its definition as the oracle, and every way to come by it: at once, by
// sliding, by joining.
#include "core/hash/rolling.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace superlifter::hash {
namespace {

Bytes noise(size_t size, uint32_t seed) {
  Bytes out(size);
  uint32_t state = seed * 2654435761U + 1;
  for (uint8_t& byte : out) {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    byte = static_cast<uint8_t>(state >> 24);
  }
  return out;
}

// c[0]·M^(n-1) + … + c[n-1], by Horner's rule.
uint32_t oracle(ByteView block) {
  uint32_t sum = 0;
  for (const uint8_t byte : block)
    sum = sum * kWeakMultiplier + byte;
  return sum;
}

// Computed apart from this code; the wire depends on them.
TEST(WeakSum, HasTheseGoldenValues) {
  EXPECT_EQ(weak_sum({}), 0U);
  EXPECT_EQ(weak_sum(as_bytes("a")), 0x61U);
  EXPECT_EQ(weak_sum(as_bytes("abc")), 0x7E04'69A6U);
  EXPECT_EQ(weak_sum(Bytes(1024, 0xFF)), 0xB011'7400U);
  Bytes counting(1000);
  for (size_t i = 0; i < counting.size(); ++i)
    counting[i] = static_cast<uint8_t>(i);
  EXPECT_EQ(weak_sum(counting), 0x6FC3'18ACU);
}

// The vector path takes 256 bytes at a time: all lengths around its borders, at all alignments.
TEST(WeakSum, IsTheSameByEveryPath) {
  const Bytes bytes = noise(400, 1);
  for (size_t begin = 0; begin < 70; ++begin) {
    for (size_t length = 0; length <= 300; ++length) {
      const ByteView block = ByteView(bytes).subspan(begin, length);
      ASSERT_EQ(weak_sum(block), oracle(block)) << begin << " " << length;
    }
  }
  const Bytes large = noise(1 << 20, 2);
  EXPECT_EQ(weak_sum(large), oracle(large));
}

TEST(WeakPower, IsRepeatedMultiplication) {
  uint32_t power = 1;
  for (uint64_t exponent = 0; exponent < 2000; ++exponent) {
    ASSERT_EQ(weak_power(exponent), power) << exponent;
    power *= kWeakMultiplier;
  }
  for (const uint64_t a : {uint64_t{1} << 20, (uint64_t{1} << 28) - 1, uint64_t{1} << 40}) {
    EXPECT_EQ(weak_power(a + 12'345), weak_power(a) * weak_power(12'345));
  }
  // The order of M is 2^30.
  EXPECT_EQ(weak_power(uint64_t{1} << 30), 1U);
  EXPECT_NE(weak_power(uint64_t{1} << 29), 1U);
}

TEST(WeakJoin, MakesTheSumOfTwoNeighbours) {
  const Bytes bytes = noise(500, 3);
  for (size_t left = 0; left <= bytes.size(); left += 7) {
    for (size_t right = 0; left + right <= bytes.size(); right += 11) {
      const ByteView both = ByteView(bytes).first(left + right);
      ASSERT_EQ(
          weak_join(weak_sum(both.first(left)), weak_sum(both.subspan(left)), weak_power(right)),
          oracle(both))
          << left << " " << right;
    }
  }
}

TEST(WeakRoller, SlidesToTheSumOfEachPosition) {
  const Bytes bytes = noise(3000, 4);
  for (const size_t length : {1U, 2U, 63U, 64U, 65U, 128U, 1000U, 1024U, 2999U, 3000U}) {
    const WeakRoller roller(length);
    uint32_t sum = weak_sum(ByteView(bytes).first(length));
    for (size_t at = 0;; ++at) {
      ASSERT_EQ(sum, oracle(ByteView(bytes).subspan(at, length))) << length << " " << at;
      if (at + length == bytes.size()) break;
      sum = roller.roll(sum, bytes[at], bytes[at + length]);
    }
  }
}

TEST(WeakRoller, SlidesOverExtremes) {
  for (const uint8_t fill : {uint8_t{0}, uint8_t{0xFF}}) {
    Bytes bytes(300, fill);
    bytes[150] = static_cast<uint8_t>(~fill);
    const WeakRoller roller(64);
    uint32_t sum = weak_sum(ByteView(bytes).first(64));
    for (size_t at = 0; at + 64 < bytes.size(); ++at) {
      sum = roller.roll(sum, bytes[at], bytes[at + 64]);
      ASSERT_EQ(sum, oracle(ByteView(bytes).subspan(at + 1, 64)));
    }
  }
}

// Every byte moves the sum, wherever it stands: M is odd.
TEST(WeakSum, ChangesWithEachBitOfEachByte) {
  const Bytes bytes = noise(256, 5);
  std::set<uint32_t> sums{weak_sum(bytes)};
  for (size_t at = 0; at < bytes.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      Bytes other = bytes;
      other[at] = static_cast<uint8_t>(other[at] ^ 1 << bit);
      sums.insert(weak_sum(other));
    }
  }
  EXPECT_EQ(sums.size(), 1 + 256 * 8U);
}

}  // namespace
}  // namespace superlifter::hash
