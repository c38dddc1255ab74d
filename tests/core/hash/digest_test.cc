// Golden digests. Those of XXH3 are of xxHash's own sanity buffer (cli/xsum_sanity_check.c); those
// of SHA-256 are of FIPS 180-4 and of sha256sum.
#include "core/hash/digest.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

namespace superlifter::hash {
namespace {

// xxHash's test buffer.
Bytes sanity_buffer() {
  Bytes buffer(2400);
  uint64_t state = 2654435761U;
  for (uint8_t& byte : buffer) {
    byte = static_cast<uint8_t>(state >> 56);
    state *= 11400714785074694797U;
  }
  return buffer;
}

struct Golden {
  size_t size = 0;
  uint64_t xxh64 = 0;
  const char* xxh128 = nullptr;
};

constexpr Golden kGolden[] = {
    {0, 0x2d06800538d394c2, "99aa06d3014798d86001c324468d497f"},
    {1, 0xc44bdff4074eecdb, "a6cd5e9392000f6ac44bdff4074eecdb"},
    {6, 0x27b56a84cd2d7325, "082afe0b8162d12a3e7039bdda43cfc6"},
    {12, 0xa713daf0dfbb77e7, "6e3efd8fc7802b18061a192713f69ad9"},
    {24, 0xa3fe70bf9d3510eb, "0ce966e4678d37611e7044d28b1b901d"},
    {48, 0x397da259ecba1f11, "a002ac4e5478227ef942219aed80f67b"},
    {80, 0xbcdefbbb2c47c90a, "fdf2cefde9eaac8a454ae6bf7a8a532d"},
    {195, 0xcd94217ee362ec3a, "7729543a26b207ee3fb593c086a66075"},
    {240, 0x81c3c2b67f568ccf, "aa4202daa2769dc85c9aae94c8ebe5a0"},
    {241, 0xc5a639ecd2030e5e, "99a80ecf0ecfc647c5a639ecd2030e5e"},
    {403, 0xcdeb804d65c6dea4, "1b6de21e332dd73dcdeb804d65c6dea4"},
    {512, 0x617e49599013cb6b, "18d2d110dcc9bca1617e49599013cb6b"},
    {2048, 0xdd59e2c3a5f038e0, "f736557fd47073a5dd59e2c3a5f038e0"},
    {2240, 0x6e73a90539cf2948, "ccb134fbfa7ce49d6e73a90539cf2948"},
    {2367, 0xcb37aeb9e5d361ed, "e89c0f6ff369b427cb37aeb9e5d361ed"},
};

TEST(Digest, XxhIsThatOfXxHashForEverySizeClass) {
  const Bytes buffer = sanity_buffer();
  for (const Golden& golden : kGolden) {
    const ByteView bytes = ByteView(buffer).first(golden.size);
    EXPECT_EQ(xxh64(bytes), golden.xxh64) << golden.size;
    EXPECT_EQ(to_hex(xxh128(bytes).bytes), golden.xxh128) << golden.size;
  }
}

TEST(Digest, Sha256IsThatOfTheStandard) {
  EXPECT_EQ(to_hex(sha256({}).bytes),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(to_hex(sha256(as_bytes("abc")).bytes),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(
      to_hex(sha256(as_bytes("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")).bytes),
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  const Bytes million(1'000'000, 'a');
  EXPECT_EQ(to_hex(sha256(million).bytes),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Digest, HashersGiveTheSameForAnyPieces) {
  const Bytes buffer = sanity_buffer();
  const Xxh128 fast = xxh128(buffer);
  const Sha256 slow = sha256(buffer);
  for (const size_t piece : {size_t{1}, size_t{7}, size_t{64}, size_t{1023}, buffer.size()}) {
    Xxh128Hasher fast_hasher;
    Sha256Hasher slow_hasher;
    for (size_t at = 0; at < buffer.size(); at += piece) {
      const ByteView part = ByteView(buffer).subspan(at, std::min(piece, buffer.size() - at));
      fast_hasher.update(part);
      slow_hasher.update(part);
    }
    EXPECT_EQ(fast_hasher.digest(), fast) << piece;
    EXPECT_EQ(slow_hasher.finish(), slow) << piece;
  }
}

TEST(Digest, HashersTakeEmptyPiecesAndCanBeginAgain) {
  Xxh128Hasher fast;
  Sha256Hasher slow;
  fast.update(as_bytes("something else"));
  slow.update(as_bytes("something else"));
  static_cast<void>(slow.finish());
  fast.reset();
  slow.reset();
  fast.update({});
  slow.update({});
  EXPECT_EQ(fast.digest(), xxh128({}));
  EXPECT_EQ(slow.finish(), sha256({}));
}

TEST(Digest, XxhDigestDoesNotEndTheHasher) {
  Xxh128Hasher hasher;
  hasher.update(as_bytes("ab"));
  EXPECT_EQ(hasher.digest(), xxh128(as_bytes("ab")));
  hasher.update(as_bytes("c"));
  EXPECT_EQ(hasher.digest(), xxh128(as_bytes("abc")));
}

TEST(Digest, HashersMoveWithTheirState) {
  Xxh128Hasher fast;
  Sha256Hasher slow;
  fast.update(as_bytes("ab"));
  slow.update(as_bytes("ab"));
  Xxh128Hasher fast_moved = std::move(fast);
  Sha256Hasher slow_moved = std::move(slow);
  fast_moved.update(as_bytes("c"));
  slow_moved.update(as_bytes("c"));
  EXPECT_EQ(fast_moved.digest(), xxh128(as_bytes("abc")));
  EXPECT_EQ(slow_moved.finish(), sha256(as_bytes("abc")));
}

TEST(Digest, OnlyAllZerosIsUnknown) {
  EXPECT_FALSE(Xxh128{}.known());
  EXPECT_FALSE(Sha256{}.known());
  EXPECT_TRUE(xxh128({}).known());
  EXPECT_TRUE(sha256({}).known());
  Sha256 last_bit;
  last_bit.bytes.back() = 1;
  EXPECT_TRUE(last_bit.known());
}

TEST(Digest, HexIsLowerCaseAndWhole) {
  const Bytes bytes = {0x00, 0x0f, 0xa0, 0xff};
  EXPECT_EQ(to_hex(bytes), "000fa0ff");
  EXPECT_EQ(to_hex({}), "");
}

}  // namespace
}  // namespace superlifter::hash
