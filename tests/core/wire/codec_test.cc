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
                        .nodes_bytes = 100},
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
                                       {.entry = 200, .offset = 4096, .length_bytes = 128}}},
                 5, out);
        },
        [](ByteView payload) { return decode_read(payload).has_value(); }}},
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
    return decode_read(bytes).has_value();
  };
  EXPECT_FALSE(read_of(0));
  EXPECT_TRUE(read_of(kMaxReadItems));
  EXPECT_FALSE(read_of(kMaxReadItems + 1));
  EXPECT_FALSE(read_of(1'000'000));
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
