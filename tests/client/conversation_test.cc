// The client's side of the protocol: replies picked up while content comes, and packed content.
#include "client/conversation.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zstd.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/check.h"
#include "core/base/coding.h"
#include "core/base/limits.h"
#include "core/wire/codec.h"
#include "tests/support/manual_clock.h"

namespace superlifter::client {
namespace {

using wire::Code;
using wire::Type;

Bytes frame(Type type, uint32_t request, ByteView payload, uint8_t flags = 0) {
  Bytes out;
  wire::encode_frame_header({.length_bytes = static_cast<uint32_t>(payload.size()),
                             .type = type,
                             .flags = flags,
                             .request = request},
                            out);
  out.insert(out.end(), payload.begin(), payload.end());
  return out;
}
Bytes data(uint32_t request, std::string_view content,
           uint8_t flags = wire::kItemEnd | wire::kItemOk) {
  return frame(Type::kData, request, as_bytes(content), flags);
}
Bytes item(uint32_t request, uint32_t index, Code status) {
  Bytes out;
  wire::encode(wire::ItemStatus{.index = index, .status = status}, request, out);
  return out;
}
Bytes joined(const std::vector<Bytes>& parts) {
  Bytes out;
  for (const Bytes& part : parts) {
    out.insert(out.end(), part.begin(), part.end());
  }
  return out;
}
Bytes compressed(ByteView plain) {
  Bytes out(ZSTD_compressBound(plain.size()));
  out.resize(ZSTD_compress(out.data(), out.size(), plain.data(), plain.size(), 1));
  return out;
}
Bytes packed(uint32_t request, const std::vector<Bytes>& frames) {
  return frame(Type::kPacked, request, compressed(joined(frames)));
}

// A conversation with a server that this test plays.
class ConversationTest : public testing::Test {
 protected:
  ConversationTest() {
    int ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    const int room = 4 << 20;
    CHECK(setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)) == 0);
    server_ = UniqueFd(ends[1]);
    Bytes hello;
    wire::encode(wire::ServerHello{.version = wire::kProtocolVersion,
                                   .features = {},
                                   .agent = "test",
                                   .idle_timeout_ms = 1000,
                                   .motd = {}},
                 hello);
    serve(hello);
    io::ByteStream stream;
    stream.in = UniqueFd(ends[0]);
    uint32_t retry_after_ms = 0;
    auto started = Conversation::start(std::move(stream), {.peer = "test"}, clock_, retry_after_ms);
    CHECK(started.has_value());
    conversation_ = std::move(*started);
  }

  void serve(const Bytes& bytes) {
    ASSERT_EQ(send(server_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  uint32_t read(bool may_pack) {
    return conversation_->send_read(
        {.items = {{.entry = 1, .offset = 0, .length_bytes = 100}}, .may_pack = may_pack});
  }
  uint32_t signature(uint64_t most_bytes = 100) {
    return conversation_->send_signature(
        {.level = 10,
         .width_bytes = 4,
         .items = {{.entry = 1, .first_block = 0, .block_count = 4}}},
        most_bytes);
  }
  // One receive; what came is noted as text.
  Status turn() {
    return conversation_->turn(
        [this](const Conversation::ReadEvent& event) -> Status {
          if (event.is_item_status) {
            seen_ += "item " + std::to_string(event.index) + " " +
                     std::string(wire::to_text(event.status)) + ";";
          } else {
            seen_ += std::string(as_text(event.bytes)) + (event.ends_item ? "|" : "") +
                     (event.decided ? "ok;" : "");
            EXPECT_NE(event.slab, nullptr);
            if (keeps_) held_.push_back(event.slab);
          }
          return {};
        },
        0);
  }
  // The same where a failure came before: what that left is looked at first.
  Status next_failure() {
    const Status turned = turn();
    return turned ? turn() : turned;
  }
  void expect_broken(std::string_view what) {
    const Status turned = turn();
    ASSERT_FALSE(turned);
    EXPECT_EQ(turned.error().code, Errc::kProtocol);
    EXPECT_NE(turned.error().message.find(what), std::string::npos) << turned.error().message;
  }

  tests::ManualClock clock_;
  UniqueFd server_;
  std::unique_ptr<Conversation> conversation_;
  std::string seen_;
  bool keeps_ = false;
  std::vector<SlabRef> held_;
};

TEST_F(ConversationTest, AReplyIsPickedUpWhileContentComes) {
  const uint32_t sums = signature();
  const uint32_t content = read(false);
  const uint32_t more_sums = signature();
  EXPECT_FALSE(conversation_->poll_reply(sums));
  serve(joined({frame(Type::kSums, sums, as_bytes("su")), data(content, "content"),
                frame(Type::kSums, sums, as_bytes("ms"), wire::kLast)}));
  ASSERT_TRUE(turn());
  EXPECT_EQ(seen_, "content|ok;");
  const std::optional<Result<Bytes>> reply = conversation_->poll_reply(sums);
  ASSERT_TRUE(reply && *reply);
  EXPECT_EQ(as_text(**reply), "sums");
  EXPECT_FALSE(conversation_->poll_reply(more_sums));
  Bytes error;
  wire::encode(wire::ErrorReply{.code = Code::kGone, .argument = 7}, more_sums, error);
  serve(error);
  ASSERT_TRUE(turn());
  const std::optional<Result<Bytes>> failed = conversation_->poll_reply(more_sums);
  ASSERT_TRUE(failed);
  EXPECT_EQ(failed->error().code, Errc::kGone);
  EXPECT_EQ(conversation_->error_argument(), 7U);
}

TEST_F(ConversationTest, SumsMayBeWaitedFor) {
  const uint32_t sums = signature(4);
  serve(frame(Type::kSums, sums, as_bytes("sums"), wire::kLast));
  const Result<Bytes> reply = conversation_->wait(sums);
  ASSERT_TRUE(reply);
  EXPECT_EQ(as_text(*reply), "sums");
}

TEST_F(ConversationTest, MoreSumsThanAskedForBreakTheProtocol) {
  const uint32_t sums = signature(4);
  serve(frame(Type::kSums, sums, as_bytes("sums!"), wire::kLast));
  expect_broken("larger than it may be");
}

TEST_F(ConversationTest, SumsThatNobodyAskedForBreakTheProtocol) {
  serve(frame(Type::kSums, 77, as_bytes("sums"), wire::kLast));
  expect_broken("answers nothing");
}

TEST_F(ConversationTest, PackedContentComesAsIfItHadComeByItself) {
  const uint32_t id = read(true);
  serve(joined({packed(id, {data(id, "one"), data(id, "tw", 0), data(id, "o", wire::kItemEnd),
                            item(id, 1, Code::kStale), data(id, "")}),
                data(id, "plain"), packed(id, {item(id, 4, Code::kIo)})}));
  ASSERT_TRUE(turn());
  EXPECT_EQ(seen_, "one|ok;two|item 1 " + std::string(wire::to_text(Code::kStale)) +
                       ";|ok;plain|ok;item 4 " + std::string(wire::to_text(Code::kIo)) + ";");
  EXPECT_LT(conversation_->bytes_received(), 1000U);
}

TEST_F(ConversationTest, PackedContentStaysAsLongAsItIsHeld) {
  const uint32_t id = read(true);
  std::vector<ByteView> views;
  std::vector<SlabRef> slabs;
  for (int i = 0; i < 4; ++i) {
    serve(packed(id, {data(id, std::string(1000, static_cast<char>('a' + i)))}));
    ASSERT_TRUE(conversation_->turn(
        [&](const Conversation::ReadEvent& event) -> Status {
          views.push_back(event.bytes);
          slabs.push_back(event.slab);
          return {};
        },
        0));
  }
  ASSERT_EQ(views.size(), 4U);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(as_text(views[static_cast<size_t>(i)]),
              std::string(1000, static_cast<char>('a' + i)));
  }
}

TEST_F(ConversationTest, WritersThatHoldEverythingStopTheReceiving) {
  const uint32_t id = read(true);
  keeps_ = true;
  Bytes all;
  for (int i = 0; i < 100; ++i) {
    const Bytes one = packed(id, {data(id, std::string(1, static_cast<char>('a' + i % 26)))});
    all.insert(all.end(), one.begin(), one.end());
  }
  serve(all);
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(turn());
  }
  EXPECT_EQ(held_.size(), 16U);
  // Silence is our own fault then.
  clock_.advance_ms(120'000);
  ASSERT_TRUE(turn());
  ASSERT_TRUE(conversation_->keep_alive());
  for (size_t returned = 0; held_.size() < 100; ++returned) {
    const size_t before = held_.size();
    held_[returned].reset();
    ASSERT_TRUE(turn());
    ASSERT_EQ(held_.size(), before + 1);
  }
  std::string expected;
  for (int i = 0; i < 100; ++i) {
    expected += std::string(1, static_cast<char>('a' + i % 26)) + "|ok;";
  }
  EXPECT_EQ(seen_, expected);
}

TEST_F(ConversationTest, ControlRepliesComeBehindPackedContentThatWaited) {
  const uint32_t id = read(true);
  const uint32_t sums = signature();
  keeps_ = true;
  for (int i = 0; i < 17; ++i) {
    serve(packed(id, {data(id, "x")}));
  }
  serve(frame(Type::kSums, sums, as_bytes("sums"), wire::kLast));
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(turn());
  }
  EXPECT_FALSE(conversation_->poll_reply(sums));
  // Nobody wants the content any more.
  conversation_->abandon_reads();
  ASSERT_TRUE(conversation_->wait(sums));
  EXPECT_EQ(held_.size(), 16U);
}

TEST_F(ConversationTest, PackedWithoutLeaveBreaksTheProtocol) {
  const uint32_t id = read(false);
  serve(packed(id, {data(id, "x")}));
  expect_broken("not asked for");
}

TEST_F(ConversationTest, PackedForNoReadBreaksTheProtocol) {
  const uint32_t sums = signature();
  serve(packed(sums, {data(sums, "x")}));
  expect_broken("not asked for");
}

TEST_F(ConversationTest, PackedForAnAbandonedReadIsDropped) {
  const uint32_t id = read(true);
  conversation_->abandon_reads();
  serve(frame(Type::kPacked, id, as_bytes("anything")));
  EXPECT_TRUE(turn());
}

TEST_F(ConversationTest, RepliesToAbandonedRequestsAreDropped) {
  const uint32_t half = signature();
  serve(frame(Type::kSums, half, as_bytes("half")));
  ASSERT_TRUE(turn());
  const uint32_t id = read(true);
  conversation_->abandon_requests();
  serve(frame(Type::kSums, half, as_bytes("rest"), wire::kLast));
  serve(data(id, "x"));
  EXPECT_TRUE(turn());
  EXPECT_TRUE(held_.empty());
  // What is asked for from now on is answered as ever.
  const uint32_t next = signature();
  serve(frame(Type::kSums, next, as_bytes("sums"), wire::kLast));
  EXPECT_TRUE(conversation_->wait(next));
}

TEST_F(ConversationTest, OnlyContentOfTheSameReadMayBePacked) {
  struct Case {
    const char* name;
    std::function<Bytes(uint32_t id)> inner;
  };
  for (const auto& [name, inner] : std::vector<Case>{
           {"another request", [](uint32_t id) { return data(id + 1, "x"); }},
           {"request 0", [](uint32_t) { return data(0, "x"); }},
           {"packed", [](uint32_t id) { return packed(id, {data(id, "x")}); }},
           {"sums", [](uint32_t id) { return frame(Type::kSums, id, as_bytes("x")); }},
           {"ping", [](uint32_t id) { return frame(Type::kPing, id, {}); }}}) {
    const uint32_t id = read(true);
    serve(packed(id, {inner(id)}));
    const Status turned = next_failure();
    ASSERT_FALSE(turned) << name;
    EXPECT_EQ(turned.error().code, Errc::kProtocol) << name;
    EXPECT_NE(turned.error().message.find("packed"), std::string::npos) << name;
  }
}

TEST_F(ConversationTest, DamagedPackedContentBreaksTheProtocol) {
  const Bytes plain = data(1, std::string(10'000, 'x'));
  const Bytes good = compressed(plain);
  const auto without_size = [&] {
    ZSTD_CCtx* context = ZSTD_createCCtx();
    CHECK(ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0)) == 0);
    Bytes out(ZSTD_compressBound(plain.size()));
    out.resize(ZSTD_compress2(context, out.data(), out.size(), plain.data(), plain.size()));
    ZSTD_freeCCtx(context);
    return out;
  };
  Bytes cut = good;
  cut.pop_back();
  Bytes longer = good;
  longer.push_back(0);
  Bytes partial = plain;
  partial.pop_back();
  const Bytes skippable = {0x50, 0x2A, 0x4D, 0x18, 0, 0, 0, 0};
  for (const Bytes& bytes :
       {Bytes{}, Bytes{1, 2, 3}, without_size(), cut, longer, joined({good, good}), skippable,
        compressed({}), compressed(Bytes(kMaxPackedBytes + 1, 0)), compressed(partial),
        compressed(as_bytes("no frames at all"))}) {
    const uint32_t id = read(true);
    serve(frame(Type::kPacked, id, bytes));
    const Status turned = next_failure();
    ASSERT_FALSE(turned);
    EXPECT_EQ(turned.error().code, Errc::kProtocol);
    seen_.clear();
  }
}

TEST_F(ConversationTest, AsMuchAsMayBePackedIsTaken) {
  const uint32_t id = read(true);
  const std::string content(kMaxPackedBytes - kFrameHeaderBytes, 'x');
  serve(packed(id, {data(id, content)}));
  ASSERT_TRUE(turn());
  EXPECT_EQ(seen_, content + "|ok;");
}

}  // namespace
}  // namespace superlifter::client
