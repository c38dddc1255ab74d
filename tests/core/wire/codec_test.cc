// Golden vectors: tests/golden/wire/<message>.hex hold the bytes that PROTOCOL.md asks for, field
// by field with their tags. Each is encoded to, decoded from, truncated and flipped here.
#include "core/wire/codec.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <map>
#include <string>

#include "core/base/coding.h"
#include "core/base/limits.h"
#include "core/wire/frame.h"

namespace superlifter::wire {
namespace {

// A golden vector: hex digits, blanks, and comments from '#' to the end of the line.
Bytes golden(const std::string& name) {
  std::ifstream in(SUPERLIFTER_SOURCE_DIR "/tests/golden/wire/" + name + ".hex");
  EXPECT_TRUE(in.good()) << name;
  Bytes out;
  std::string line;
  while (std::getline(in, line)) {
    std::string digits;
    for (const char c : line.substr(0, line.find('#'))) {
      if (std::isxdigit(static_cast<unsigned char>(c)) != 0) digits += c;
    }
    for (size_t i = 0; i + 1 < digits.size(); i += 2) {
      out.push_back(static_cast<uint8_t>(std::stoi(digits.substr(i, 2), nullptr, 16)));
    }
  }
  return out;
}

hash::Sha256 digest_of(uint8_t byte) {
  hash::Sha256 digest;
  digest.bytes.fill(byte);
  return digest;
}

struct Vector {
  std::function<void(Bytes&)> encode;
  std::function<bool(ByteView)> decodes;  // Payload without the header.
};

const std::map<std::string, Vector>& vectors() {
  static const std::map<std::string, Vector> all = {
      {"client_hello",
       {[](Bytes& out) {
          encode(
              ClientHello{.version_min = 1, .version_max = 2, .features = {"ab"}, .agent = "t/1"},
              out);
        },
        [](ByteView payload) { return decode_client_hello(payload).has_value(); }}},
      {"server_hello",
       {[](Bytes& out) {
          encode(ServerHello{.version = 1,
                             .features = {},
                             .agent = "s",
                             .idle_timeout_ms = 60000,
                             .motd = "hi"},
                 out);
        },
        [](ByteView payload) { return decode_server_hello(payload).has_value(); }}},
      {"busy",
       {[](Bytes& out) { encode(Busy{.reason = Code::kBusy, .retry_after_ms = 5000}, out); },
        [](ByteView payload) { return decode_busy(payload).has_value(); }}},
      {"error",
       {[](Bytes& out) { encode(ErrorReply{.code = Code::kGone, .argument = 3}, 7, out); },
        [](ByteView payload) { return decode_error(payload).has_value(); }}},
      {"open",
       {[](Bytes& out) { encode(Open{.module = "debian"}, 1, out); },
        [](ByteView payload) { return decode_open(payload).has_value(); }}},
      {"opened",
       {[](Bytes& out) {
          encode(Opened{.generation = 17,
                        .root = digest_of(0xAB),
                        .provisional = true,
                        .has_owners = true,
                        .mode = 0755,
                        .mtime_s = -1,
                        .mtime_ns = 999999999,
                        .owner = "root",
                        .group = "www",
                        .entries = 3,
                        .files = 2,
                        .bytes = 4096,
                        .nodes = 1,
                        .nodes_bytes = 100,
                        .signature_level = 10},
                 1, out);
        },
        [](ByteView payload) { return decode_opened(payload).has_value(); }}},
      {"tree_all",
       {[](Bytes& out) { encode(TreeRequest{.all = true, .nodes = {}}, 2, out); },
        [](ByteView payload) { return decode_tree(payload).has_value(); }}},
      {"tree_listed",
       {[](Bytes& out) {
          encode(TreeRequest{.all = false, .nodes = {digest_of(1), digest_of(2)}}, 3, out);
        },
        [](ByteView payload) { return decode_tree(payload).has_value(); }}},
      {"digests",
       {[](Bytes& out) {
          encode(DigestsRequest{.kind = DigestKind::kXxh128,
                                .ranges = {{.first = 1, .count = 2}, {.first = 300, .count = 1}}},
                 4, out);
        },
        [](ByteView payload) { return decode_digests(payload).has_value(); }}},
      {"read",
       {[](Bytes& out) {
          encode(ReadRequest{.items = {{.entry = 5, .offset = 0, .length_bytes = 0},
                                       {.entry = 200, .offset = 4096, .length_bytes = 128},
                                       {.entry = 200, .offset = 5000, .length_bytes = 1000}},
                             .may_pack = true},
                 5, out);
        },
        [](ByteView payload) { return decode_read(payload, kMayPack).has_value(); }}},
      {"signature",
       {[](Bytes& out) {
          encode(SignatureRequest{.level = 10,
                                  .width_bytes = 7,
                                  .items = {{.entry = 5, .first_block = 0, .block_count = 1},
                                            {.entry = 5, .first_block = 4, .block_count = 300},
                                            {.entry = 6, .first_block = 128, .block_count = 1}}},
                 6, out);
        },
        [](ByteView payload) { return decode_signature(payload).has_value(); }}},
      {"item",
       {[](Bytes& out) { encode(ItemStatus{.index = 2, .status = Code::kStale}, 5, out); },
        [](ByteView payload) { return decode_item(payload).has_value(); }}},
  };
  return all;
}

TEST(Codec, EncodesEachMessageAsItsGoldenVector) {
  for (const auto& [name, vector] : vectors()) {
    Bytes made;
    vector.encode(made);
    EXPECT_EQ(hash::to_hex(made), hash::to_hex(golden(name))) << name;
  }
}

TEST(Codec, DecodesEachGoldenVectorAndNoTruncationOfIt) {
  for (const auto& [name, vector] : vectors()) {
    const Bytes bytes = golden(name);
    const ByteView payload = ByteView(bytes).subspan(kFrameHeaderBytes);
    EXPECT_TRUE(vector.decodes(payload)) << name;
    for (size_t size = 0; size < payload.size(); ++size) {
      EXPECT_FALSE(vector.decodes(payload.first(size))) << name << " cut to " << size;
    }
    Bytes longer(payload.begin(), payload.end());
    longer.push_back(0);
    EXPECT_FALSE(vector.decodes(longer)) << name << " with a byte more";
  }
}

TEST(Codec, IsTotalOnEveryFlippedByte) {
  for (const auto& [name, vector] : vectors()) {
    const Bytes bytes = golden(name);
    for (size_t at = kFrameHeaderBytes; at < bytes.size(); ++at) {
      for (int flip = 1; flip < 256; ++flip) {
        Bytes bad = bytes;
        bad[at] ^= static_cast<uint8_t>(flip);
        static_cast<void>(vector.decodes(ByteView(bad).subspan(kFrameHeaderBytes)));
      }
    }
  }
}

TEST(Codec, GivesBackWhatWasEncoded) {
  Bytes bytes;
  encode(DigestsRequest{.kind = DigestKind::kSha256,
                        .ranges = {{.first = 0, .count = 1}, {.first = 7, .count = 100}}},
         4, bytes);
  const Result<DigestsRequest> digests = decode_digests(ByteView(bytes).subspan(kFrameHeaderBytes));
  ASSERT_TRUE(digests);
  EXPECT_EQ(digests->kind, DigestKind::kSha256);
  ASSERT_EQ(digests->ranges.size(), 2U);
  EXPECT_EQ(digests->ranges[1].first, 7U);
  EXPECT_EQ(digests->ranges[1].count, 100U);

  const Bytes list = encode_module_list(
      {.modules = {
           {.name = "a", .comment = "c", .generation = 1, .entries = 2, .files = 3, .bytes = 4}}});
  const Result<ModuleList> modules = decode_module_list(list);
  ASSERT_TRUE(modules);
  EXPECT_EQ(modules->modules[0].name, "a");
  EXPECT_EQ(modules->modules[0].bytes, 4U);
  for (size_t size = 0; size < list.size(); ++size) {
    EXPECT_FALSE(decode_module_list(ByteView(list).first(size))) << size;
  }
}

TEST(Codec, RefusesCountsBeyondTheirBounds) {
  const auto read_of = [](size_t items) {
    Bytes bytes;
    Writer writer(bytes);
    writer.varint(items);
    for (size_t i = 0; i < items; ++i) {
      writer.varint(1);
      writer.varint(0);
      writer.varint(0);
    }
    return decode_read(bytes, 0).has_value();
  };
  EXPECT_FALSE(read_of(0));
  EXPECT_TRUE(read_of(kMaxReadItems));
  EXPECT_FALSE(read_of(kMaxReadItems + 1));
  EXPECT_FALSE(read_of(1'000'000));
}

TEST(Codec, GivesBackTheItemsOfReadAndSignature) {
  const Bytes read_bytes = golden("read");
  const Result<ReadRequest> read =
      decode_read(ByteView(read_bytes).subspan(kFrameHeaderBytes), kMayPack);
  ASSERT_TRUE(read);
  EXPECT_TRUE(read->may_pack);
  ASSERT_EQ(read->items.size(), 3U);
  EXPECT_EQ(read->items[1].offset, 4096U);
  EXPECT_EQ(read->items[2].entry, 200U);
  EXPECT_EQ(read->items[2].offset, 5000U);
  EXPECT_EQ(read->items[2].length_bytes, 1000U);
  EXPECT_FALSE(decode_read(ByteView(read_bytes).subspan(kFrameHeaderBytes), 0)->may_pack);

  const Bytes signature_bytes = golden("signature");
  const Result<SignatureRequest> signature =
      decode_signature(ByteView(signature_bytes).subspan(kFrameHeaderBytes));
  ASSERT_TRUE(signature);
  EXPECT_EQ(signature->level, 10U);
  EXPECT_EQ(signature->width_bytes, 7U);
  ASSERT_EQ(signature->items.size(), 3U);
  EXPECT_EQ(signature->items[1].first_block, 4U);
  EXPECT_EQ(signature->items[1].block_count, 300U);
  EXPECT_EQ(signature->items[2].entry, 6U);
  EXPECT_EQ(signature->items[2].first_block, 128U);
}

// An item whose length is 0 (all that follows) ends where it begins, for what is counted from it.
TEST(Codec, CountsFromItemsOfLengthZero) {
  Bytes bytes;
  encode(ReadRequest{.items = {{.entry = 3, .offset = 0, .length_bytes = 0},
                               {.entry = 3, .offset = 0, .length_bytes = 0},
                               {.entry = 3, .offset = 9, .length_bytes = 1}}},
         1, bytes);
  const Result<ReadRequest> read = decode_read(ByteView(bytes).subspan(kFrameHeaderBytes), 0);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->items[1].offset, 0U);
  EXPECT_EQ(read->items[2].offset, 9U);
}

TEST(Codec, RefusesOffsetsThatOverflow) {
  const auto second_at = [](uint64_t offset, uint64_t length, uint64_t gap, uint32_t entry) {
    Bytes bytes;
    Writer writer(bytes);
    writer.varint(2);
    for (const uint64_t number : {uint64_t{1}, offset, length, uint64_t{entry}, gap, uint64_t{1}})
      writer.varint(number);
    return decode_read(bytes, 0).has_value();
  };
  EXPECT_TRUE(second_at(INT64_MAX, 0, 0, 1));
  EXPECT_FALSE(second_at(INT64_MAX, 0, 1, 1));
  EXPECT_TRUE(second_at(INT64_MAX, 0, 1, 2));
  EXPECT_TRUE(second_at(1, INT64_MAX - 1, 0, 1));
  EXPECT_FALSE(second_at(1, INT64_MAX, 0, 1));
  EXPECT_FALSE(second_at(INT64_MAX, INT64_MAX, INT64_MAX, 1));
  EXPECT_TRUE(second_at(INT64_MAX, INT64_MAX, INT64_MAX, 2));
}

TEST(Codec, RefusesSignatureRequestsOutOfBounds) {
  const auto request = [](uint64_t level, uint64_t width, size_t items, uint64_t first,
                          uint64_t count) {
    Bytes bytes;
    Writer writer(bytes);
    writer.u8(static_cast<uint8_t>(level));
    writer.u8(static_cast<uint8_t>(width));
    writer.varint(items);
    for (size_t i = 0; i < items; ++i) {
      writer.varint(i);
      writer.varint(first);
      writer.varint(count);
    }
    return decode_signature(bytes).has_value();
  };
  for (unsigned level = 0; level < 256; ++level) {
    EXPECT_EQ(request(level, 8, 1, 0, 1), level >= 6 && level <= 28 && level % 2 == 0) << level;
  }
  for (unsigned width = 0; width < 256; ++width) {
    EXPECT_EQ(request(10, width, 1, 0, 1), width >= 4 && width <= 8) << width;
  }
  EXPECT_FALSE(request(10, 8, 0, 0, 1));
  EXPECT_TRUE(request(10, 8, kMaxSignatureItems, 0, 1));
  EXPECT_FALSE(request(10, 8, kMaxSignatureItems + 1, 0, 1));
  EXPECT_FALSE(request(10, 8, 1, 0, 0));
  EXPECT_TRUE(request(10, 8, 1, INT64_MAX, INT64_MAX));
  EXPECT_FALSE(request(10, 8, 1, uint64_t{1} << 63, 1));
  EXPECT_FALSE(request(10, 8, 1, 0, uint64_t{1} << 63));
}

TEST(Codec, RefusesSignatureLevelsInOpenedThatAreNone) {
  const Bytes bytes = golden("opened");
  for (unsigned level = 0; level < 256; ++level) {
    Bytes changed = bytes;
    changed.back() = static_cast<uint8_t>(level);
    const bool good = level == 0 || (level >= 6 && level <= 28 && level % 2 == 0);
    const Result<Opened> opened = decode_opened(ByteView(changed).subspan(kFrameHeaderBytes));
    ASSERT_EQ(opened.has_value(), good) << level;
    if (opened) {
      EXPECT_EQ(opened->signature_level, level);
    }
  }
}

TEST(Codec, RefusesEmptyAndOverflowingDigestRanges) {
  const auto ranges = [](uint64_t gap, uint64_t count) {
    Bytes bytes;
    Writer writer(bytes);
    writer.u8(1);
    writer.varint(1);
    writer.varint(gap);
    writer.varint(count);
    return decode_digests(bytes).has_value();
  };
  EXPECT_TRUE(ranges(0, 1));
  EXPECT_FALSE(ranges(0, 0));
  EXPECT_TRUE(ranges(kMaxEntries, 1));
  EXPECT_FALSE(ranges(kMaxEntries, 2));
  EXPECT_FALSE(ranges(uint64_t{1} << 40, 1));
}

}  // namespace
}  // namespace superlifter::wire
