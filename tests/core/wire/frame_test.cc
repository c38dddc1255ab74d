#include "core/wire/frame.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace superlifter::wire {
namespace {

Bytes frame(Type type, uint32_t request, std::string_view payload, uint8_t flags = 0) {
  Bytes out;
  encode_frame_header({.length_bytes = static_cast<uint32_t>(payload.size()),
                       .type = type,
                       .flags = flags,
                       .request = request},
                      out);
  out.insert(out.end(), payload.begin(), payload.end());
  return out;
}

Bytes conversation() {
  Bytes all;
  for (const Bytes& one : {frame(Type::kPing, 1, ""), frame(Type::kOpen, 2, "module"),
                           frame(Type::kData, 3, std::string(5000, 'd'), kItemEnd | kItemOk),
                           frame(Type::kData, 3, "", kItemEnd), frame(Type::kPong, 9, "")}) {
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

// What comes out, as text: type, request, payload; DATA pieces are joined.
std::vector<std::string> deframe(const Bytes& bytes, size_t step, bool stream) {
  Deframer deframer(1 << 20);
  if (stream) deframer.stream_data();
  std::vector<std::string> out;
  bool open = false;
  for (size_t at = 0; at < bytes.size(); at += step) {
    deframer.feed(ByteView(bytes).subspan(at, std::min(step, bytes.size() - at)));
    while (true) {
      const Result<std::optional<Frame>> next = deframer.next();
      EXPECT_TRUE(next) << next.error().message;
      if (!next || !*next) break;
      const Frame& got = **next;
      if (!open) {
        out.push_back(std::to_string(static_cast<int>(got.header.type)) + "/" +
                      std::to_string(got.header.request) + "/");
      }
      out.back() += as_text(got.payload);
      open = !got.ends_frame;
    }
  }
  EXPECT_TRUE(deframer.at_border());
  return out;
}

TEST(Deframer, CutsTheSameFramesHoweverTheBytesCome) {
  const Bytes bytes = conversation();
  const std::vector<std::string> whole = deframe(bytes, bytes.size(), false);
  ASSERT_EQ(whole.size(), 5U);
  for (const size_t step : {1U, 2U, 3U, 11U, 12U, 13U, 1000U, 5011U}) {
    EXPECT_EQ(deframe(bytes, step, false), whole) << step;
    EXPECT_EQ(deframe(bytes, step, true), whole) << step;
  }
}

TEST(Deframer, HandsWholeFramesOutWithoutACopy) {
  const Bytes bytes = frame(Type::kOpen, 2, "module");
  Deframer deframer(1 << 20);
  deframer.feed(bytes);
  const Result<std::optional<Frame>> next = deframer.next();
  ASSERT_TRUE(next && *next);
  EXPECT_EQ((*next)->payload.data(), bytes.data() + kFrameHeaderBytes);
}

TEST(Deframer, RefusesPayloadsBeyondTheBound) {
  for (const size_t size : {100U, 101U}) {
    Deframer deframer(100);
    const Bytes bytes = frame(Type::kOpen, 1, std::string(size, 'x'));
    deframer.feed(bytes);
    EXPECT_EQ(deframer.next().has_value(), size == 100) << size;
  }
}

TEST(Deframer, RefusesUnknownTypesAndReservedBits) {
  const Bytes good = frame(Type::kPing, 1, "");
  for (const auto& [at, value] :
       std::vector<std::pair<size_t, uint8_t>>{{4, 0}, {4, 23}, {4, 255}, {5, 1}, {6, 1}, {7, 1}}) {
    Bytes bad = good;
    bad[at] = value;
    Deframer deframer(100);
    deframer.feed(bad);
    EXPECT_FALSE(deframer.next()) << at;
    deframer.feed(good);
    EXPECT_FALSE(deframer.next()) << "a failure sticks";
  }
}

TEST(Deframer, KnowsTheFlagsOfEachType) {
  for (int type = 1; type <= 22; ++type) {
    uint8_t allowed = 0;
    switch (static_cast<Type>(type)) {
      case Type::kModuleList:
      case Type::kNodes:
      case Type::kDigestList:
      case Type::kSums:
        allowed = kLast;
        break;
      case Type::kRead:
        allowed = kMayPack;
        break;
      case Type::kData:
        allowed = kItemEnd | kItemOk;
        break;
      default:
        break;
    }
    for (unsigned flags = 0; flags < 256; ++flags) {
      const Bytes bytes = frame(static_cast<Type>(type), 1, "", static_cast<uint8_t>(flags));
      EXPECT_EQ(decode_frame_header(bytes, 0).has_value(), (flags & ~allowed) == 0)
          << type << " " << flags;
    }
  }
}

TEST(Deframer, KnowsWhetherTheStreamEndedBetweenFrames) {
  const Bytes bytes = frame(Type::kData, 1, "abc", kItemEnd);
  for (size_t size = 1; size < bytes.size(); ++size) {
    for (const bool stream : {false, true}) {
      Deframer deframer(100);
      if (stream) deframer.stream_data();
      deframer.feed(ByteView(bytes).first(size));
      while (true) {
        const Result<std::optional<Frame>> next = deframer.next();
        ASSERT_TRUE(next);
        if (!*next) break;
      }
      EXPECT_FALSE(deframer.at_border()) << size;
    }
  }
}

}  // namespace
}  // namespace superlifter::wire
