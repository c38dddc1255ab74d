// Sender: what is gathered, and what a blocked, broken or shortened piece leaves behind.
#include "core/io/sender.h"

#include <errno.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <thread>

#include "tests/core/io/io_support.h"
#include "tests/support/temp_tree.h"

namespace superlifter::io {
namespace {

using tests::open_file;
using tests::pattern;
using tests::TempTree;
using tests::to_bytes;

TEST(Sender, GathersBytesAndSaysWhenARangeIsAmongThem) {
  const TempTree tree;
  tree.write("f", "0123456789");
  Outbox outbox;
  std::vector<Piece> pieces;
  EXPECT_FALSE(gather(outbox, pieces));
  EXPECT_TRUE(pieces.empty());
  outbox.push(to_bytes("head"));
  outbox.consume(1);
  EXPECT_FALSE(gather(outbox, pieces));
  ASSERT_EQ(pieces.size(), 1U);
  EXPECT_EQ(as_text(pieces[0].bytes), "ead");
  outbox.push(FileRange{open_file(tree.path("f")), 2, 5});
  EXPECT_TRUE(gather(outbox, pieces));
  ASSERT_EQ(pieces.size(), 2U);
  EXPECT_EQ(pieces[1].range.offset, 2U);
}

TEST(Sender, GathersNoMoreThanItsBounds) {
  const TempTree tree;
  tree.write("f", "");
  Outbox many;
  for (size_t i = 0; i <= kGatherPieces; ++i)
    many.push(to_bytes("x"));
  std::vector<Piece> pieces;
  gather(many, pieces);
  EXPECT_EQ(pieces.size(), kGatherPieces);
  Outbox large;
  large.push(FileRange{open_file(tree.path("f")), 0, kGatherRangeBytes + 1});
  EXPECT_TRUE(gather(large, pieces));
  ASSERT_EQ(pieces.size(), 1U);
  EXPECT_EQ(pieces[0].range.length_bytes, kGatherRangeBytes);
}

// Sends an outbox to the end, through an fd that blocks now and then.
std::string send_through(UniqueFd out, UniqueFd in, Outbox& outbox) {
  const int flags = fcntl(out.get(), F_GETFL);
  CHECK(fcntl(out.get(), F_SETFL, flags | O_NONBLOCK) == 0);
  std::string received;
  std::jthread reader([&] { received = tests::read_to_end(in.get()); });
  std::vector<Piece> pieces;
  while (!outbox.empty()) {
    gather(outbox, pieces);
    const Sent sent = send_pieces(out.get(), kind_of(out.get()), pieces);
    CHECK(sent.sys_errno == 0);
    outbox.consume(sent.count);
    if (sent.would_block) std::this_thread::yield();
  }
  out.reset();
  reader.join();
  return received;
}

TEST(Sender, SendsBytesAndRangesInOrderToASocketAndAPipe) {
  const TempTree tree;
  const std::string content = pattern(3'000'000);
  tree.write("f", content);
  for (const bool socket : {true, false}) {
    Outbox outbox;
    outbox.push(to_bytes("head "));
    outbox.push(FileRange{open_file(tree.path("f")), 5, 2'900'000});
    outbox.push(to_bytes(" middle "));
    outbox.push(to_bytes(pattern(500'000)));
    outbox.push(FileRange{open_file(tree.path("f")), 0, 10});
    auto [in, out] = socket ? tests::socket_pair() : tests::pipe_pair();
    const std::string received = send_through(std::move(out), std::move(in), outbox);
    EXPECT_TRUE(received == "head " + content.substr(5, 2'900'000) + " middle " + pattern(500'000) +
                                content.substr(0, 10))
        << (socket ? "socket" : "pipe");
  }
}

TEST(Sender, FillsAFileThatEndsEarlyWithZerosAndSaysSo) {
  const TempTree tree;
  tree.write("f", "0123456789");
  for (const bool socket : {true, false}) {
    const std::shared_ptr<OpenFile> file = open_file(tree.path("f"));
    Outbox outbox;
    outbox.push(FileRange{file, 4, 200'000});
    outbox.push(to_bytes("tail"));
    auto [in, out] = socket ? tests::socket_pair() : tests::pipe_pair();
    const std::string received = send_through(std::move(out), std::move(in), outbox);
    EXPECT_TRUE(received == "456789" + std::string(200'000 - 6, '\0') + "tail");
    EXPECT_TRUE(file->shrunk.load());
  }
}

TEST(Sender, TreatsAFileThatCannotBeReadAsOneThatShrank) {
  const TempTree tree;
  // Reading a directory is refused by sendfile and by read.
  const std::shared_ptr<OpenFile> directory = open_file(tree.path());
  Outbox outbox;
  outbox.push(FileRange{directory, 0, 1000});
  auto [in, out] = tests::socket_pair();
  EXPECT_EQ(send_through(std::move(out), std::move(in), outbox), std::string(1000, '\0'));
  EXPECT_TRUE(directory->shrunk.load());
}

TEST(Sender, CopiesWhereSendfileIsRefused) {
  const TempTree tree;
  const std::string content = pattern(300'000);
  tree.write("f", content);
  tree.write("out", "");
  Outbox outbox;
  outbox.push(FileRange{open_file(tree.path("f")), 1, 299'999});
  std::vector<Piece> pieces;
  gather(outbox, pieces);
  // sendfile refuses an out-fd that was opened for appending.
  const UniqueFd out(open(tree.path("out").c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  const Sent sent = send_pieces(out.get(), kind_of(out.get()), pieces);
  EXPECT_EQ(sent.sys_errno, 0);
  EXPECT_EQ(sent.count, 299'999U);
  EXPECT_TRUE(tree.read("out") == content.substr(1));
}

TEST(Sender, SaysThatTheFdIsFullAndThatItIsBroken) {
  signal(SIGPIPE, SIG_IGN);
  const TempTree tree;
  tree.write("f", pattern(1'000'000));
  auto [in, out] = tests::pipe_pair();
  ASSERT_EQ(fcntl(out.get(), F_SETFL, O_NONBLOCK), 0);
  Outbox outbox;
  outbox.push(FileRange{open_file(tree.path("f")), 0, 1'000'000});
  std::vector<Piece> pieces;
  gather(outbox, pieces);
  const Sent full = send_pieces(out.get(), FdKind::kOther, pieces);
  EXPECT_TRUE(full.would_block);
  EXPECT_EQ(full.sys_errno, 0);
  EXPECT_LT(full.count, 1'000'000U);
  in.reset();
  EXPECT_EQ(send_pieces(out.get(), FdKind::kOther, pieces).sys_errno, EPIPE);
}

}  // namespace
}  // namespace superlifter::io
