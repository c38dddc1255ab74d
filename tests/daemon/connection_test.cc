// Connection: a whole conversation over a socket pair, deadlines, and the ways it can end.
#include "daemon/connection.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <memory>
#include <string>
#include <vector>

#include "core/io/engine.h"
#include "core/io/pump.h"
#include "core/shm/segment.h"
#include "core/wire/codec.h"
#include "core/wire/frame.h"
#include "daemon/catalog_store.h"
#include "tests/daemon/serve_support.h"

namespace superlifter::daemon {
namespace {

using wire::Type;

// A frame with its payload kept.
struct Received {
  wire::FrameHeader header;
  std::string payload;
};

class ConnectionTest : public testing::Test {
 protected:
  void SetUp() override {
    served_.tree.write("root/big", std::string(3'000'000, 'b'));
    served_.tree.write("root/small", "some text");
    served_.index();
    Result<shm::Segment> segment = shm::Segment::create(4);
    ASSERT_TRUE(segment.has_value());
    segment_.emplace(std::move(*segment));
    limiter_.emplace(*segment_, shm::Limits{});
    cache_.emplace(served_.config, clock_, nullptr);
    Result<std::unique_ptr<io::Engine>> engine = io::make_uv_engine();
    ASSERT_TRUE(engine.has_value());
    engine_ = std::move(*engine);
    tick_ = engine_->make_timer([this] { engine_->stop(); });
  }
  void TearDown() override {
    connection_.reset();
    tick_.reset();
    engine_.reset();
  }

  void start(ConnectionOptions options = {}) {
    int fds[2] = {-1, -1};
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    Result<io::Pump> client = io::Pump::make({UniqueFd(fds[1]), UniqueFd()});
    ASSERT_TRUE(client.has_value());
    client_.emplace(std::move(*client));
    Result<shm::Admission> admission = limiter_->admit({}, 0);
    ASSERT_TRUE(admission.has_value());
    auto store = std::make_unique<SessionStore>(*cache_, std::nullopt, *limiter_, admission->row());
    options.peer = "test";
    Result<std::unique_ptr<Connection>> started =
        Connection::start(*engine_, std::move(options),
                          {{UniqueFd(fds[0]), UniqueFd()}, std::move(store), std::move(*admission)},
                          [this](Connection& closed) {
                            summary_ = closed.summary();
                            closed_ = true;
                          });
    ASSERT_TRUE(started.has_value()) << started.error().message;
    connection_ = std::move(*started);
  }

  // Lets server and client work by turns until the frame that ends what is waited for; all frames.
  std::vector<Received> exchange(Bytes request, Type last, size_t count = 1) {
    client_->send(std::move(request));
    std::vector<Received> frames;
    for (int turn = 0; turn < 20'000 && count > 0; ++turn) {
      run_server();
      const Result<io::Pump::Turn> got = client_->turn(buffer_, 0);
      if (!got || (got->received_bytes == 0 && got->ended)) {
        ended_ = true;
        return frames;
      }
      deframer_.feed(ByteView(buffer_).first(got->received_bytes));
      while (true) {
        const Result<std::optional<wire::Frame>> frame = deframer_.next();
        CHECK(frame.has_value());
        if (!*frame) break;
        frames.push_back({(*frame)->header, std::string(as_text((*frame)->payload))});
        if ((*frame)->header.type == last) --count;
      }
    }
    return frames;
  }
  void run_server() {
    tick_->set(1);
    engine_->run();
  }
  void run_until_closed() {
    for (int turn = 0; turn < 20'000 && !closed_; ++turn)
      run_server();
    EXPECT_TRUE(closed_);
  }
  static Bytes hello() {
    Bytes bytes;
    wire::ClientHello client_hello;
    client_hello.agent = "test";
    wire::encode(client_hello, bytes);
    return bytes;
  }

  tests::ServedTree served_;
  tests::ManualClock clock_;
  std::optional<shm::Segment> segment_;
  std::optional<shm::Limiter> limiter_;
  std::optional<CatalogCache> cache_;
  std::unique_ptr<io::Engine> engine_;
  std::unique_ptr<io::Timer> tick_;
  std::optional<io::Pump> client_;
  std::unique_ptr<Connection> connection_;
  wire::Deframer deframer_{kMaxReplyPayload};
  Bytes buffer_ = Bytes(1 << 20);
  std::string summary_;
  bool closed_ = false;
  bool ended_ = false;  // The client saw the end of the stream.
};

TEST_F(ConnectionTest, ServesAWholeConversation) {
  start();
  const std::vector<Received> greeting = exchange(hello(), Type::kHello);
  ASSERT_EQ(greeting.size(), 1U);

  Bytes requests;
  wire::encode_empty(Type::kModules, 1, requests);
  wire::encode(wire::Open{.module = "m"}, 2, requests);
  const std::vector<Received> opened = exchange(std::move(requests), Type::kOpened);
  ASSERT_EQ(opened.size(), 2U);
  EXPECT_EQ(opened[0].header.type, Type::kModuleList);
  const Result<wire::Opened> generation = wire::decode_opened(as_bytes(opened[1].payload));
  ASSERT_TRUE(generation.has_value());
  EXPECT_EQ(generation->files, 2U);

  // Entry 1 is "big", entry 2 is "small".
  Bytes read;
  wire::encode(wire::ReadRequest{.items = {{.entry = 1}, {.entry = 2}}}, 3, read);
  std::string big;
  std::string small;
  bool big_ok = false;
  for (const Received& frame : exchange(std::move(read), Type::kItem)) {
    if (frame.header.type == Type::kItem) {
      const Result<wire::ItemStatus> status = wire::decode_item(as_bytes(frame.payload));
      ASSERT_TRUE(status.has_value());
      big_ok = status->index == 0 && status->status == wire::Code::kOk;
      continue;
    }
    ASSERT_EQ(frame.header.type, Type::kData);
    if (big.size() < 3'000'000) {
      big += frame.payload;
    } else {
      small += frame.payload;
    }
  }
  EXPECT_TRUE(big == std::string(3'000'000, 'b'));
  EXPECT_EQ(small, "some text");
  EXPECT_TRUE(big_ok);

  Bytes goodbye;
  wire::encode_empty(Type::kGoodbye, 0, goodbye);
  exchange(std::move(goodbye), Type::kGoodbye);
  client_.reset();
  run_until_closed();
  EXPECT_NE(summary_.find("module=m"), std::string::npos) << summary_;
  EXPECT_NE(summary_.find("files=2"), std::string::npos) << summary_;
  EXPECT_EQ(limiter_->count(), 0U);
}

TEST_F(ConnectionTest, CountsItsBytesInItsRow) {
  start();
  exchange(hello(), Type::kHello);
  run_server();
  const shm::RowSnapshot row = shm::snapshot(segment_->rows()[0]);
  EXPECT_EQ(row.bytes_received, hello().size());
  EXPECT_GT(row.bytes_sent, 0U);
}

TEST_F(ConnectionTest, SaysWhyToAPeerThatIsNoClient) {
  start();
  const std::string_view http = "GET / HTTP/1.1\r\nHost: example.org\r\n\r\n";
  const std::vector<Received> frames = exchange(Bytes(http.begin(), http.end()), Type::kError);
  ASSERT_EQ(frames.size(), 1U);
  const Result<wire::ErrorReply> error = wire::decode_error(as_bytes(frames[0].payload));
  ASSERT_TRUE(error.has_value());
  EXPECT_EQ(error->code, wire::Code::kProtocol);
  exchange({}, Type::kError);
  EXPECT_TRUE(ended_);
  client_.reset();
  run_until_closed();
}

TEST_F(ConnectionTest, EndsASilentPeerAtTheHelloTimeout) {
  ConnectionOptions options;
  options.hello_timeout_ms = 5;
  start(std::move(options));
  const std::vector<Received> frames = exchange({}, Type::kError);
  ASSERT_EQ(frames.size(), 1U);
  EXPECT_EQ(wire::decode_error(as_bytes(frames[0].payload))->code, wire::Code::kTimeout);
}

TEST_F(ConnectionTest, EndsAnIdleSessionAtTheIdleTimeout) {
  ConnectionOptions options;
  options.idle_timeout_ms = 20;
  start(std::move(options));
  const std::vector<Received> frames = exchange(hello(), Type::kError);
  ASSERT_EQ(frames.size(), 2U);
  EXPECT_EQ(wire::decode_error(as_bytes(frames[1].payload))->code, wire::Code::kTimeout);
}

TEST_F(ConnectionTest, EndsEverySessionAtTheSessionTimeout) {
  ConnectionOptions options;
  options.session_timeout_ms = 20;
  start(std::move(options));
  const std::vector<Received> frames = exchange(hello(), Type::kError);
  ASSERT_FALSE(frames.empty());
  EXPECT_EQ(wire::decode_error(as_bytes(frames.back().payload))->code, wire::Code::kTimeout);
}

TEST_F(ConnectionTest, TellsAShutdown) {
  start();
  exchange(hello(), Type::kHello);
  connection_->end(wire::Code::kShutdown);
  connection_->end(wire::Code::kInternal);  // It is ending already.
  const std::vector<Received> frames = exchange({}, Type::kError);
  ASSERT_EQ(frames.size(), 1U);
  EXPECT_EQ(wire::decode_error(as_bytes(frames[0].payload))->code, wire::Code::kShutdown);
}

TEST_F(ConnectionTest, EndsWhenThePeerLeaves) {
  start();
  exchange(hello(), Type::kHello);
  client_.reset();
  run_until_closed();
  EXPECT_NE(summary_.find("the peer left"), std::string::npos) << summary_;
}

TEST_F(ConnectionTest, EndsWhenThePeerLeavesInTheMiddleOfItsData) {
  start();
  exchange(hello(), Type::kHello);
  Bytes requests;
  wire::encode(wire::Open{.module = "m"}, 1, requests);
  wire::encode(wire::ReadRequest{.items = std::vector<wire::ReadItem>(64, {.entry = 1})}, 2,
               requests);
  exchange(std::move(requests), Type::kData);
  client_.reset();
  run_until_closed();
}

}  // namespace
}  // namespace superlifter::daemon
