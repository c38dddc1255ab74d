#include "core/base/coding.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

namespace superlifter {
namespace {

Bytes bytes_of(std::initializer_list<int> values) {
  Bytes out;
  for (const int value : values)
    out.push_back(static_cast<uint8_t>(value));
  return out;
}

// One of everything.
Bytes sample() {
  Bytes out;
  Writer writer(out);
  writer.u8(0xAB);
  writer.u16(0x1234);
  writer.u32(0xDEADBEEF);
  writer.u64(0x0123456789ABCDEF);
  writer.i64(-2);
  writer.varint(300);
  writer.counted("name");
  writer.bytes(as_bytes("xyz"));
  return out;
}

void read_sample(Reader& reader) {
  reader.u8();
  reader.u16();
  reader.u32();
  reader.u64();
  reader.i64();
  reader.varint();
  reader.counted(4);
  reader.bytes(3);
}

TEST(Coding, WritesLittleEndian) {
  Bytes out;
  Writer writer(out);
  writer.u16(0x0102);
  writer.u32(0x03040506);
  writer.u64(0x0708090A0B0C0D0E);
  EXPECT_EQ(out, bytes_of({2, 1, 6, 5, 4, 3, 0x0E, 0x0D, 0x0C, 0x0B, 0x0A, 9, 8, 7}));
}

TEST(Coding, ReadsWhatWasWritten) {
  const Bytes bytes = sample();
  Reader reader(bytes);
  EXPECT_EQ(reader.u8(), 0xAB);
  EXPECT_EQ(reader.u16(), 0x1234);
  EXPECT_EQ(reader.u32(), 0xDEADBEEF);
  EXPECT_EQ(reader.u64(), 0x0123456789ABCDEFU);
  EXPECT_EQ(reader.i64(), -2);
  EXPECT_EQ(reader.varint(), 300U);
  EXPECT_EQ(reader.counted(4), "name");
  EXPECT_EQ(as_text(reader.bytes(3)), "xyz");
  EXPECT_EQ(reader.remaining(), 0U);
  EXPECT_TRUE(reader.finish("sample").has_value());
}

TEST(Coding, EveryTruncationIsTruncated) {
  const Bytes bytes = sample();
  for (size_t size = 0; size < bytes.size(); ++size) {
    Reader reader(ByteView(bytes).first(size));
    read_sample(reader);
    EXPECT_FALSE(reader.ok()) << size;
    const Status status = reader.finish("sample");
    ASSERT_FALSE(status.has_value()) << size;
    EXPECT_EQ(status.error().code, Errc::kTruncated) << size;
    EXPECT_EQ(status.error().message, "sample: ends too early");
  }
}

TEST(Coding, BytesLeftOverAreRefused) {
  Bytes bytes = sample();
  bytes.push_back(0);
  Reader reader(bytes);
  read_sample(reader);
  const Status status = reader.finish("sample");
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, Errc::kProtocol);
}

TEST(Coding, FirstFailureSticks) {
  const Bytes bytes = bytes_of({1, 2, 3});
  Reader reader(bytes);
  EXPECT_EQ(reader.u32(), 0U);
  // The three bytes are there, and yet nothing more is given out.
  EXPECT_EQ(reader.u8(), 0);
  EXPECT_TRUE(reader.bytes(1).empty());
  EXPECT_TRUE(reader.bytes(0).empty());
  EXPECT_EQ(reader.counted(10), "");
  EXPECT_EQ(reader.remaining(), 0U);
  reader.invalidate();  // Does not turn "too short" into "wrong".
  EXPECT_EQ(reader.finish("x").error().code, Errc::kTruncated);
}

TEST(Coding, VarintsHaveGoldenForms) {
  const struct {
    uint64_t value;
    Bytes bytes;
  } golden[] = {
      {0, bytes_of({0})},
      {1, bytes_of({1})},
      {127, bytes_of({0x7F})},
      {128, bytes_of({0x80, 0x01})},
      {300, bytes_of({0xAC, 0x02})},
      {16'383, bytes_of({0xFF, 0x7F})},
      {16'384, bytes_of({0x80, 0x80, 0x01})},
      {std::numeric_limits<uint64_t>::max(),
       bytes_of({0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01})},
  };
  for (const auto& [value, expected] : golden) {
    Bytes out;
    Writer(out).varint(value);
    EXPECT_EQ(out, expected) << value;
    Reader reader(out);
    EXPECT_EQ(reader.varint(), value);
    EXPECT_TRUE(reader.finish("varint").has_value());
  }
}

TEST(Coding, VarintsThatAreTooLongOrPaddedAreInvalid) {
  const Bytes wrong[] = {
      bytes_of({0x80, 0x00}),                                                  // Zero in two bytes.
      bytes_of({0xFF, 0x80, 0x00}),                                            // 127 in three.
      bytes_of({0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02}),  // 2^64 and more.
      bytes_of(
          {0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01}),  // Eleven bytes.
      bytes_of({0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x81, 0x00}),
  };
  for (const Bytes& bytes : wrong) {
    Reader reader(bytes);
    EXPECT_EQ(reader.varint(), 0U);
    EXPECT_EQ(reader.finish("varint").error().code, Errc::kProtocol);
  }
}

TEST(Coding, VarintThatEndsEarlyIsTruncatedNotInvalid) {
  for (const Bytes& bytes : {bytes_of({}), bytes_of({0x80}), bytes_of({0xFF, 0xFF})}) {
    Reader reader(bytes);
    reader.varint();
    EXPECT_EQ(reader.finish("varint").error().code, Errc::kTruncated);
  }
}

TEST(Coding, RandomVarintsComeBack) {
  constexpr uint64_t kSeed = 20'240'601;
  SCOPED_TRACE(kSeed);
  std::mt19937_64 random(kSeed);
  for (int i = 0; i < 10'000; ++i) {
    const uint64_t value = random() >> (random() % 64);
    Bytes out;
    Writer(out).varint(value);
    ASSERT_LE(out.size(), 10U);
    Reader reader(out);
    ASSERT_EQ(reader.varint(), value);
    ASSERT_TRUE(reader.finish("varint").has_value());
  }
}

TEST(Coding, BoundedVarintHoldsItsBound) {
  Bytes out;
  Writer(out).varint(1000);
  Reader at_bound(out);
  EXPECT_EQ(at_bound.varint_at_most(1000), 1000U);
  EXPECT_TRUE(at_bound.ok());
  Reader beyond(out);
  EXPECT_EQ(beyond.varint_at_most(999), 0U);
  EXPECT_EQ(beyond.finish("x").error().code, Errc::kProtocol);
}

TEST(Coding, CountedHoldsItsBoundBeforeItLooksAtTheBytes) {
  Bytes out;
  Writer(out).counted("abcd");
  Reader at_bound(out);
  EXPECT_EQ(at_bound.counted(4), "abcd");
  Reader beyond(out);
  EXPECT_EQ(beyond.counted(3), "");
  EXPECT_EQ(beyond.finish("x").error().code, Errc::kProtocol);
  // A huge count with nothing behind it is wrong, not "wait for more".
  Bytes huge;
  Writer(huge).varint(std::numeric_limits<uint64_t>::max());
  Reader reader(huge);
  reader.counted(4096);
  EXPECT_EQ(reader.finish("x").error().code, Errc::kProtocol);
}

TEST(Coding, AnyBytesAreReadWithoutHarm) {
  constexpr uint64_t kSeed = 7;
  SCOPED_TRACE(kSeed);
  std::mt19937_64 random(kSeed);
  for (int i = 0; i < 20'000; ++i) {
    Bytes bytes(random() % 48);
    for (uint8_t& byte : bytes)
      byte = static_cast<uint8_t>(random());
    Reader reader(bytes);
    for (int step = 0; step < 12; ++step) {
      switch (random() % 6) {
        case 0:
          reader.u16();
          break;
        case 1:
          reader.u64();
          break;
        case 2:
          reader.varint();
          break;
        case 3:
          ASSERT_LE(reader.counted(16).size(), 16U);
          break;
        case 4:
          ASSERT_LE(reader.bytes(random() % 9).size(), 8U);
          break;
        default:
          reader.varint_at_most(100);
          break;
      }
    }
    ASSERT_TRUE(reader.ok() || reader.remaining() == 0);
  }
}

}  // namespace
}  // namespace superlifter
