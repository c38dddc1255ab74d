// uv_engine: streams over sockets and pipes, ranges larger than either holds, file work, lifetimes.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "core/io/engine.h"
#include "tests/core/io/io_support.h"
#include "tests/support/temp_tree.h"

namespace superlifter::io {
namespace {

using tests::open_file;
using tests::open_request;
using tests::pattern;
using tests::TempTree;
using tests::to_bytes;

// Keeps what it is told and calls the test where it wants to act.
class Recorder final : public StreamHandler {
 public:
  std::function<void()> on_change = [] {};
  std::string received;
  std::vector<FileReply> files;
  int files_done = 0;
  int sent = 0;
  bool ended = false;
  std::optional<Error> broken;

  void on_bytes(ByteView bytes) override {
    received.append(as_text(bytes));
    on_change();
  }
  void on_file(FileReply reply) override {
    files.push_back(std::move(reply));
    on_change();
  }
  void on_files_done() override {
    ++files_done;
    on_change();
  }
  void on_sent() override {
    ++sent;
    on_change();
  }
  void on_end() override {
    ended = true;
    on_change();
  }
  void on_broken(const Error& error) override {
    broken = error;
    on_change();
  }
};

class UvEngineTest : public testing::Test {
 protected:
  void SetUp() override {
    Result<std::unique_ptr<Engine>> made = make_uv_engine();
    ASSERT_TRUE(made.has_value());
    engine_ = std::move(*made);
    watchdog_ = engine_->make_timer([this] {
      ADD_FAILURE() << "nothing happened for 20 s";
      engine_->stop();
    });
    watchdog_->set(20'000);
  }
  void TearDown() override {
    stream_.reset();
    watchdog_.reset();
    engine_.reset();
  }

  void attach(ByteStream stream) {
    Result<std::unique_ptr<Stream>> attached = engine_->attach(std::move(stream), recorder_);
    ASSERT_TRUE(attached.has_value()) << attached.error().message;
    stream_ = std::move(*attached);
  }
  // Runs the loop until a condition holds, looked at after each event.
  void run_until(const std::function<bool()>& condition) {
    recorder_.on_change = [this, condition] {
      if (condition()) engine_->stop();
    };
    engine_->run();
    recorder_.on_change = [] {};
  }
  // Sends what is in the outbox and says that it is all.
  void send_all() {
    stream_->flush();
    stream_->finish_output();
    run_until([this] { return stream_->outbox().empty(); });
    // The end goes out in the next turn.
    const std::unique_ptr<Timer> turn = engine_->make_timer([this] { engine_->stop(); });
    turn->set(1);
    engine_->run();
  }

  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Timer> watchdog_;
  Recorder recorder_;
  std::unique_ptr<Stream> stream_;
};

TEST_F(UvEngineTest, ReceivesBytesAndTheEnd) {
  auto [mine, theirs] = tests::socket_pair();
  attach({std::move(mine), {}});
  const std::string text = pattern(1'000'000);
  std::jthread writer([&text, fd = std::move(theirs)] {
    size_t done = 0;
    while (done < text.size()) {
      const ssize_t wrote = write(fd.get(), text.data() + done, text.size() - done);
      if (wrote <= 0) return;
      done += static_cast<size_t>(wrote);
    }
    shutdown(fd.get(), SHUT_WR);
  });
  run_until([this] { return recorder_.ended; });
  EXPECT_TRUE(recorder_.received == text);
  EXPECT_FALSE(recorder_.broken);
}

TEST_F(UvEngineTest, SendsBytesAndRangesInOrderOverASocket) {
  const TempTree tree;
  const std::string content = pattern(9'000'000);
  tree.write("f", content);
  auto [mine, theirs] = tests::socket_pair();
  attach({std::move(mine), {}});
  std::string received;
  std::jthread reader([&received, fd = theirs.get()] { received = tests::read_to_end(fd); });
  const std::shared_ptr<OpenFile> file = open_file(tree.path("f"));
  std::string expected;
  for (int i = 0; i < 300; ++i) {
    stream_->outbox().push(to_bytes("small "));
    expected += "small ";
  }
  stream_->outbox().push(FileRange{file, 0, 9'000'000});
  stream_->outbox().push(to_bytes("between"));
  stream_->outbox().push(FileRange{file, 100, 50});
  stream_->outbox().push(to_bytes(pattern(3'000'000)));
  send_all();
  reader.join();
  expected += content + "between" + content.substr(100, 50) + pattern(3'000'000);
  EXPECT_TRUE(received == expected);
  EXPECT_GT(recorder_.sent, 0);
  EXPECT_FALSE(file->shrunk.load());
}

TEST_F(UvEngineTest, SendsARangeLargerThanAPipe) {
  const TempTree tree;
  const std::string content = pattern(5'000'000);
  tree.write("f", content);
  auto [in_read, in_write] = tests::pipe_pair();
  auto [out_read, out_write] = tests::pipe_pair();
  attach({std::move(in_read), std::move(out_write)});
  std::string received;
  std::jthread reader([&received, fd = out_read.get()] { received = tests::read_to_end(fd); });
  stream_->outbox().push(to_bytes("head"));
  stream_->outbox().push(FileRange{open_file(tree.path("f")), 0, content.size()});
  stream_->outbox().push(to_bytes("tail"));
  send_all();
  reader.join();
  EXPECT_TRUE(received == "head" + content + "tail");
  // The out-fd is closed; the other direction still works.
  ASSERT_EQ(write(in_write.get(), "more", 4), 4);
  run_until([this] { return recorder_.received == "more"; });
}

TEST_F(UvEngineTest, FillsAFileThatEndsEarlyWithZeros) {
  const TempTree tree;
  tree.write("f", "short");
  auto [mine, theirs] = tests::socket_pair();
  attach({std::move(mine), {}});
  std::string received;
  std::jthread reader([&received, fd = theirs.get()] { received = tests::read_to_end(fd); });
  const std::shared_ptr<OpenFile> file = open_file(tree.path("f"));
  stream_->outbox().push(FileRange{file, 0, 6'000'000});
  stream_->outbox().push(to_bytes("tail"));
  send_all();
  reader.join();
  EXPECT_TRUE(received == "short" + std::string(6'000'000 - 5, '\0') + "tail");
  EXPECT_TRUE(file->shrunk.load());
}

TEST_F(UvEngineTest, StopsReadingWhilePaused) {
  auto [mine, theirs] = tests::socket_pair();
  attach({std::move(mine), {}});
  stream_->pause_reading();
  ASSERT_EQ(write(theirs.get(), "x", 1), 1);
  const std::unique_ptr<Timer> timer = engine_->make_timer([this] { engine_->stop(); });
  timer->set(20);
  engine_->run();
  EXPECT_EQ(recorder_.received, "");
  stream_->resume_reading();
  run_until([this] { return recorder_.received == "x"; });
}

TEST_F(UvEngineTest, AnswersEachFileRequestOnce) {
  const TempTree tree;
  constexpr size_t kFiles = 100;
  for (size_t i = 0; i < kFiles; ++i)
    tree.write("f" + std::to_string(i), std::to_string(i));
  auto [mine, theirs] = tests::socket_pair();
  attach({std::move(mine), {}});
  std::vector<FileRequest> requests(kFiles + 1);
  for (size_t i = 0; i <= kFiles; ++i) {
    requests[i].id = i;
    requests[i].open = open_request(tree.fd(), "f" + std::to_string(i));
    requests[i].ranges = {{0, 10}};
  }
  stream_->submit(std::move(requests));
  EXPECT_TRUE(recorder_.files.empty());  // Never from inside the call.
  run_until([this] { return recorder_.files.size() == kFiles + 1 && recorder_.files_done > 0; });
  std::vector<int> seen(kFiles + 1);
  for (const FileReply& reply : recorder_.files) {
    ++seen.at(reply.id);
    if (reply.id == kFiles) {
      EXPECT_EQ(reply.sys_errno, ENOENT);
    } else {
      EXPECT_EQ(as_text(reply.data), std::to_string(reply.id));
    }
  }
  EXPECT_EQ(seen, std::vector<int>(kFiles + 1, 1));
}

TEST_F(UvEngineTest, AStreamMayGoWithWorkInFlight) {
  const TempTree tree;
  tree.write("f", pattern(3'000'000));
  for (int i = 0; i < 20; ++i) {
    auto [mine, theirs] = tests::socket_pair();
    attach({std::move(mine), {}});
    std::vector<FileRequest> requests(200);
    for (FileRequest& request : requests) {
      request.open = open_request(tree.fd(), "f");
      request.ranges = {{0, 60'000}};
    }
    stream_->submit(std::move(requests));
    stream_->outbox().push(FileRange{open_file(tree.path("f")), 0, 3'000'000});
    stream_->flush();
    const std::unique_ptr<Timer> turn = engine_->make_timer([this] { engine_->stop(); });
    turn->set(0);
    engine_->run();
    recorder_.files.clear();
    stream_.reset();
    EXPECT_TRUE(recorder_.files.empty());
  }
}

TEST_F(UvEngineTest, AHandlerMayDestroyItsStream) {
  const TempTree tree;
  tree.write("f", "x");
  auto [mine, theirs] = tests::socket_pair();
  attach({std::move(mine), {}});
  std::vector<FileRequest> requests(10);
  for (FileRequest& request : requests)
    request.open = open_request(tree.fd(), "f");
  stream_->submit(std::move(requests));
  run_until([this] {
    stream_.reset();
    return true;
  });
  EXPECT_EQ(recorder_.files.size(), 1U);
  EXPECT_EQ(recorder_.files_done, 0);
  // The fd goes once the work has ended.
  std::string rest;
  std::jthread reader([&rest, fd = theirs.get()] { rest = tests::read_to_end(fd); });
  watchdog_.reset();
  engine_.reset();
  reader.join();
  EXPECT_EQ(rest, "");
}

TEST_F(UvEngineTest, ReportsABreakOnceAndThenNothing) {
  auto [mine, theirs] = tests::socket_pair();
  attach({std::move(mine), {}});
  theirs.reset();
  stream_->outbox().push(to_bytes("nobody reads this"));
  stream_->flush();
  run_until([this] { return recorder_.broken.has_value(); });
  EXPECT_EQ(recorder_.broken->code, Errc::kClosed);
  // Every call is still allowed.
  stream_->flush();
  stream_->resume_reading();
  stream_->finish_output();
  stream_->submit({});
}

TEST_F(UvEngineTest, RefusesAnFdThatCannotBeWaitedFor) {
  const TempTree tree;
  tree.write("f", "x");
  UniqueFd file(open(tree.path("f").c_str(), O_RDONLY | O_CLOEXEC));
  const auto attached = engine_->attach({std::move(file), {}}, recorder_);
  ASSERT_FALSE(attached.has_value());
  EXPECT_EQ(attached.error().code, Errc::kIo);
  auto [read_end, write_end] = tests::pipe_pair();
  UniqueFd out(open(tree.path("f").c_str(), O_WRONLY | O_CLOEXEC));
  EXPECT_FALSE(engine_->attach({std::move(read_end), std::move(out)}, recorder_).has_value());
}

class Acceptor final : public AcceptHandler {
 public:
  std::function<void(UniqueFd)> on_socket;
  void on_accept(UniqueFd socket) override { on_socket(std::move(socket)); }
  void on_accept_error(const Error& error) override { FAIL() << error.message; }
};

TEST_F(UvEngineTest, AcceptsUntilItStopsListening) {
  const UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  ASSERT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(listener.get(), 16), 0);
  ASSERT_EQ(getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  Acceptor acceptor;
  int accepted = 0;
  acceptor.on_socket = [&](UniqueFd socket) {
    EXPECT_TRUE(socket.valid());
    EXPECT_NE(fcntl(socket.get(), F_GETFL) & O_NONBLOCK, 0);
    EXPECT_NE(fcntl(socket.get(), F_GETFD) & FD_CLOEXEC, 0);
    if (++accepted == 2) {
      engine_->stop_listening();
      engine_->stop();
    }
  };
  ASSERT_TRUE(engine_->listen(listener.get(), acceptor).has_value());
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 3; ++i) {
    clients.emplace_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(connect(clients.back().get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  }
  engine_->run();
  EXPECT_EQ(accepted, 2);
}

TEST_F(UvEngineTest, TimersFireOnceAndCanBeMoved) {
  int fired = 0;
  std::unique_ptr<Timer> timer;
  timer = engine_->make_timer([&] {
    ++fired;
    timer.reset();  // Inside its own call.
    engine_->stop();
  });
  timer->set(10'000);
  timer->set(1);
  engine_->run();
  EXPECT_EQ(fired, 1);
}

TEST_F(UvEngineTest, WatchesABorrowedFd) {
  auto [read_end, write_end] = tests::pipe_pair();
  int calls = 0;
  ASSERT_TRUE(engine_
                  ->watch(read_end.get(),
                          [&, fd = read_end.get()] {
                            char byte = 0;
                            calls += read(fd, &byte, 1) == 1 ? 1 : 0;
                            engine_->stop();
                          })
                  .has_value());
  ASSERT_EQ(write(write_end.get(), "x", 1), 1);
  engine_->run();
  EXPECT_EQ(calls, 1);
  watchdog_.reset();
  engine_.reset();
}

}  // namespace
}  // namespace superlifter::io
