// Pump: both directions at once, the end of either, wake and timeout.
#include "core/io/pump.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <string>
#include <thread>

#include "tests/core/io/io_support.h"

namespace superlifter::io {
namespace {

using tests::pattern;
using tests::to_bytes;

Pump make_pump(ByteStream stream) {
  Result<Pump> pump = Pump::make(std::move(stream));
  CHECK(pump.has_value());
  return std::move(*pump);
}

class PumpTest : public testing::Test {
 protected:
  void SetUp() override { signal(SIGPIPE, SIG_IGN); }
};

TEST_F(PumpTest, SendsAndReceivesMoreThanTheKernelBuffers) {
  auto [mine, theirs] = tests::socket_pair();
  Pump pump = make_pump({std::move(mine), {}});
  const std::string out = pattern(2'000'000);
  // The echo reads and writes by turns, so both directions fill up.
  std::jthread echo([fd = theirs.get()] {
    std::string piece(10'000, '\0');
    while (true) {
      const ssize_t got = read(fd, piece.data(), piece.size());
      if (got <= 0) return;
      ssize_t done = 0;
      while (done < got) {
        const ssize_t wrote = write(fd, piece.data() + done, static_cast<size_t>(got - done));
        if (wrote <= 0) return;
        done += wrote;
      }
    }
  });
  for (size_t at = 0; at < out.size(); at += 100'000)
    pump.send(to_bytes(out.substr(at, 100'000)));
  EXPECT_EQ(pump.unsent_bytes(), out.size());
  std::string in;
  Bytes buffer(50'000);
  while (in.size() < out.size()) {
    const Result<Pump::Turn> turn = pump.turn(buffer, 10'000);
    ASSERT_TRUE(turn.has_value()) << turn.error().message;
    ASSERT_FALSE(turn->timed_out);
    in.append(as_text(buffer).substr(0, turn->received_bytes));
  }
  EXPECT_TRUE(in == out);
  EXPECT_EQ(pump.sent_bytes(), out.size());
  EXPECT_EQ(pump.received_bytes(), out.size());
  EXPECT_EQ(pump.unsent_bytes(), 0U);
  shutdown(theirs.get(), SHUT_RDWR);
}

TEST_F(PumpTest, WorksOverTwoPipes) {
  auto [in_read, in_write] = tests::pipe_pair();
  auto [out_read, out_write] = tests::pipe_pair();
  Pump pump = make_pump({std::move(in_read), std::move(out_write)});
  pump.send(to_bytes("question"));
  Bytes buffer(100);
  ASSERT_TRUE(pump.turn(buffer, 10'000).has_value());
  std::string got(8, '\0');
  ASSERT_EQ(read(out_read.get(), got.data(), got.size()), 8);
  EXPECT_EQ(got, "question");
  ASSERT_EQ(write(in_write.get(), "answer", 6), 6);
  const Result<Pump::Turn> turn = pump.turn(buffer, 10'000);
  ASSERT_TRUE(turn.has_value());
  EXPECT_EQ(turn->received_bytes, 6U);
}

TEST_F(PumpTest, TellsTheEndOfTheStream) {
  auto [mine, theirs] = tests::socket_pair();
  Pump pump = make_pump({std::move(mine), {}});
  ASSERT_EQ(write(theirs.get(), "last", 4), 4);
  theirs.reset();
  Bytes buffer(100);
  Result<Pump::Turn> turn = pump.turn(buffer, 10'000);
  ASSERT_TRUE(turn.has_value());
  EXPECT_EQ(turn->received_bytes, 4U);
  turn = pump.turn(buffer, 10'000);
  ASSERT_TRUE(turn.has_value());
  EXPECT_TRUE(turn->ended);
}

TEST_F(PumpTest, ReceivesWhatThePeerSaidBeforeItClosed) {
  auto [mine, theirs] = tests::socket_pair();
  Pump pump = make_pump({std::move(mine), {}});
  ASSERT_EQ(write(theirs.get(), "busy", 4), 4);
  theirs.reset();
  pump.send(to_bytes("hello"));
  Bytes buffer(100);
  const Result<Pump::Turn> turn = pump.turn(buffer, 10'000);
  ASSERT_TRUE(turn.has_value()) << turn.error().message;
  EXPECT_EQ(turn->received_bytes, 4U);
  const Result<Pump::Turn> broken = pump.turn(buffer, 10'000);
  ASSERT_FALSE(broken.has_value());
  EXPECT_EQ(broken.error().code, Errc::kClosed);
}

TEST_F(PumpTest, TimesOutWhenNothingHappens) {
  auto [mine, theirs] = tests::socket_pair();
  Pump pump = make_pump({std::move(mine), {}});
  Bytes buffer(100);
  const Result<Pump::Turn> turn = pump.turn(buffer, 1);
  ASSERT_TRUE(turn.has_value());
  EXPECT_TRUE(turn->timed_out);
  EXPECT_FALSE(turn->woken);
}

TEST_F(PumpTest, IsWokenByAnotherThread) {
  auto [mine, theirs] = tests::socket_pair();
  Pump pump = make_pump({std::move(mine), {}});
  const std::jthread waker([&] { pump.wake(); });
  const Result<Pump::Turn> turn = pump.turn({}, 10'000);
  ASSERT_TRUE(turn.has_value());
  EXPECT_TRUE(turn->woken);
  const Result<Pump::Turn> next = pump.turn({}, 0);
  ASSERT_TRUE(next.has_value());
  EXPECT_TRUE(next->timed_out);
}

TEST_F(PumpTest, DoesNotReceiveIntoAnEmptyBuffer) {
  auto [mine, theirs] = tests::socket_pair();
  Pump pump = make_pump({std::move(mine), {}});
  ASSERT_EQ(write(theirs.get(), "x", 1), 1);
  const Result<Pump::Turn> turn = pump.turn({}, 1);
  ASSERT_TRUE(turn.has_value());
  EXPECT_TRUE(turn->timed_out);
}

}  // namespace
}  // namespace superlifter::io
