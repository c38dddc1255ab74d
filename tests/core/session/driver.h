// A session with everything around it: a driver that answers its file work from a FakeStore,
// drains its outbox and cuts frames, and what a client makes of them.
#pragma once

#include <gtest/gtest.h>
#include <zstd.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/base/bytes.h"
#include "core/base/limits.h"
#include "core/base/outbox.h"
#include "core/session/session.h"
#include "core/wire/codec.h"
#include "core/wire/frame.h"
#include "tests/support/fake_store.h"

namespace superlifter::session {

struct Reply {
  wire::FrameHeader header;
  std::string payload;
};

class Driver {
 public:
  explicit Driver(tests::FakeStore& store, Packer* packer = nullptr)
      : store_(store),
        session_({.motd = "hi", .idle_timeout_ms = 1, .agent = "t", .packer = packer}, store) {}

  void say_hello() {
    Bytes hello;
    wire::encode(wire::ClientHello{}, hello);
    send(hello);
    ASSERT_FALSE(replies.empty());
    ASSERT_EQ(replies.front().header.type, wire::Type::kHello);
    replies.clear();
  }
  void open() {
    say_hello();
    Bytes bytes;
    wire::encode(wire::Open{.module = "m"}, 1, bytes);
    send(bytes);
    ASSERT_EQ(replies.size(), 1U);
    ASSERT_EQ(replies[0].header.type, wire::Type::kOpened);
    replies.clear();
  }
  void send(const Bytes& bytes, size_t step = SIZE_MAX) {
    for (size_t at = 0; at < bytes.size(); at += std::min(step, bytes.size() - at)) {
      session_.feed(ByteView(bytes).subspan(at, std::min(step, bytes.size() - at)));
      run();
    }
  }
  // Until nothing moves any more.
  void run() {
    while (true) {
      session_.advance(outbox_);
      largest_outbox = std::max(largest_outbox, outbox_.queued_bytes());
      for (FileRequest& request : session_.take_file_requests()) {
        ++file_requests;
        for (const FileRequest::Range& range : request.ranges)
          bytes_asked += range.length_bytes;
        pending.push_back(std::move(request));
      }
      const bool answered = answers && !pending.empty();
      if (answered) answer();
      const bool drained = !outbox_.empty() && drains;
      if (drained) drain();
      if (!answered && !drained) return;
    }
  }
  // Gives the replies that are due, the last first where that was asked for.
  void answer() {
    std::vector<FileRequest> due = std::exchange(pending, {});
    if (backwards) std::reverse(due.begin(), due.end());
    for (const FileRequest& request : due)
      session_.on_file(store_.run(request));
  }
  void drain() {
    Bytes bytes;
    for (const OutItem& item : outbox_.items()) {
      if (item.is_range()) {
        const std::string data = store_.read(item.range);
        bytes_in_ranges += data.size();
        bytes.insert(bytes.end(), data.begin(), data.end());
      } else {
        bytes.insert(bytes.end(), item.bytes.begin(), item.bytes.end());
      }
    }
    outbox_.consume(outbox_.queued_bytes());
    deframer_.feed(bytes);
    while (true) {
      const auto frame = deframer_.next();
      ASSERT_TRUE(frame) << frame.error().message;
      if (!*frame) return;
      replies.push_back({(*frame)->header, std::string(as_text((*frame)->payload))});
    }
  }

  Session& session() { return session_; }
  Outbox& outbox() { return outbox_; }

  std::vector<Reply> replies;
  std::vector<FileRequest> pending;  // Not answered yet.
  uint64_t largest_outbox = 0;
  size_t file_requests = 0;
  uint64_t bytes_asked = 0;      // Of file work.
  uint64_t bytes_in_ranges = 0;  // That left as ranges of files.
  bool drains = true;
  bool answers = true;
  bool backwards = false;

 private:
  tests::FakeStore& store_;
  Session session_;
  Outbox outbox_;
  wire::Deframer deframer_{kMaxReplyPayload};
};

inline Bytes read_request(uint32_t id, std::vector<wire::ReadItem> items, bool may_pack = false) {
  Bytes bytes;
  wire::encode(wire::ReadRequest{.items = std::move(items), .may_pack = may_pack}, id, bytes);
  return bytes;
}

inline Bytes cancel_request(uint32_t id) {
  Bytes bytes;
  wire::encode_empty(wire::Type::kCancel, id, bytes);
  return bytes;
}

// The replies as they would have come without packing.
inline std::vector<Reply> unpacked(const std::vector<Reply>& replies) {
  std::vector<Reply> out;
  for (const Reply& reply : replies) {
    if (reply.header.type != wire::Type::kPacked) {
      out.push_back(reply);
      continue;
    }
    const auto size = ZSTD_getFrameContentSize(reply.payload.data(), reply.payload.size());
    EXPECT_LE(size, kMaxPackedBytes);  // Else it is not stated.
    if (size > kMaxPackedBytes) continue;
    Bytes frames(size);
    EXPECT_EQ(ZSTD_decompress(frames.data(), size, reply.payload.data(), reply.payload.size()),
              size);
    EXPECT_LE(reply.payload.size() + kFrameHeaderBytes, size - size / 128);
    wire::Deframer deframer(kMaxReplyPayload);
    deframer.feed(frames);
    for (auto frame = deframer.next(); frame && *frame; frame = deframer.next()) {
      const wire::FrameHeader& header = (*frame)->header;
      EXPECT_TRUE(header.type == wire::Type::kData || header.type == wire::Type::kItem);
      EXPECT_EQ(header.request, reply.header.request);
      out.push_back({header, std::string(as_text((*frame)->payload))});
    }
    EXPECT_TRUE(deframer.at_border());
  }
  return out;
}

inline size_t count_of(const std::vector<Reply>& replies, wire::Type type) {
  return static_cast<size_t>(std::count_if(replies.begin(), replies.end(), [&](const Reply& reply) {
    return reply.header.type == type;
  }));
}

// Item index -> content and status, from DATA and ITEM frames as a client puts them together.
struct Got {
  std::string content;
  std::optional<wire::Code> status;
};
inline std::map<size_t, Got> collect(const std::vector<Reply>& replies) {
  std::map<size_t, Got> items;
  size_t cursor = 0;
  for (const Reply& reply : unpacked(replies)) {
    if (reply.header.type == wire::Type::kData) {
      Got& item = items[cursor];
      EXPECT_FALSE(item.status) << "data of an item that has its status";
      item.content += reply.payload;
      if ((reply.header.flags & wire::kItemOk) != 0) item.status = wire::Code::kOk;
      if ((reply.header.flags & wire::kItemEnd) != 0) ++cursor;
    } else if (reply.header.type == wire::Type::kItem) {
      const auto item = wire::decode_item(as_bytes(reply.payload));
      EXPECT_FALSE(items[item->index].status) << "a second status";
      items[item->index].status = item->status;
      if (item->index == cursor) ++cursor;
    }
  }
  return items;
}

inline wire::Code last_error(const Driver& driver) {
  EXPECT_FALSE(driver.replies.empty());
  if (driver.replies.empty() || driver.replies.back().header.type != wire::Type::kError)
    return wire::Code::kOk;
  return wire::decode_error(as_bytes(driver.replies.back().payload))->code;
}

// Content that zstd halves at least, and content that it cannot make smaller.
inline std::string text_of(size_t size, unsigned seed = 1) {
  std::string out;
  uint64_t state = seed;
  while (out.size() < size) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    out += "line " + std::to_string(state >> 60) + " of some text\n";
  }
  out.resize(size);
  return out;
}
inline std::string noise_of(size_t size, unsigned seed = 1) {
  std::string out(size, '\0');
  uint64_t state = seed;
  for (char& c : out) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    c = static_cast<char>(state >> 56);
  }
  return out;
}

}  // namespace superlifter::session
