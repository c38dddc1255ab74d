#include "core/session/session.h"

#include <gtest/gtest.h>
#include <zstd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "core/base/coding.h"
#include "core/base/limits.h"
#include "core/wire/codec.h"
#include "tests/core/session/driver.h"
#include "tests/support/fake_store.h"

namespace superlifter::session {
namespace {

using tests::FakeStore;
using wire::Code;
using wire::Type;

TEST(Session, AnswersHelloWithItsVersionAndMotd) {
  FakeStore store;
  Driver driver(store);
  Bytes hello;
  wire::encode(
      wire::ClientHello{.version_min = 1, .version_max = 9, .features = {"later"}, .agent = "x"},
      hello);
  driver.send(hello);
  ASSERT_EQ(driver.replies.size(), 1U);
  const auto reply = wire::decode_server_hello(as_bytes(driver.replies[0].payload));
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->version, wire::kProtocolVersion);
  EXPECT_EQ(reply->motd, "hi");
  EXPECT_TRUE(reply->features.empty());
}

TEST(Session, EndsWithVersionWhenThereIsNoCommonOne) {
  FakeStore store;
  Driver driver(store);
  Bytes hello;
  wire::encode(wire::ClientHello{.version_min = 2, .version_max = 9, .features = {}, .agent = ""},
               hello);
  driver.send(hello);
  EXPECT_EQ(last_error(driver), Code::kVersion);
  EXPECT_TRUE(driver.session().has_ended());
}

TEST(Session, EndsOnAnythingButAHelloFirst) {
  for (const std::string& text : {std::string("GET / HTTP/1.0\r\n\r\n"),
                                  std::string("@RSYNCD: 31.0\n"), std::string(64, '\0')}) {
    FakeStore store;
    Driver driver(store);
    driver.send(Bytes(text.begin(), text.end()));
    EXPECT_EQ(last_error(driver), Code::kProtocol);
    EXPECT_TRUE(driver.session().has_ended());
  }
}

TEST(Session, ServesTheSameHoweverTheBytesCome) {
  FakeStore store;
  store.set_files({"one", "", std::string(200'000, 'b')});
  for (const size_t step : {size_t{1}, size_t{7}, SIZE_MAX}) {
    Driver driver(store);
    driver.open();
    driver.send(read_request(
                    5, {{.entry = 1}, {.entry = 2}, {.entry = 3}, {.entry = 3, .offset = 199'990}}),
                step);
    const auto items = collect(driver.replies);
    ASSERT_EQ(items.size(), 4U);
    EXPECT_EQ(items.at(0).content, "one");
    EXPECT_EQ(items.at(1).content, "");
    EXPECT_EQ(items.at(2).content, std::string(200'000, 'b'));
    EXPECT_EQ(items.at(3).content, std::string(10, 'b'));
    for (const auto& [index, item] : items) {
      EXPECT_EQ(item.status, Code::kOk) << index;
    }
  }
}

TEST(Session, CutsRangesAtTheEndOfTheFile) {
  FakeStore store;
  store.set_files({"0123456789"});
  Driver driver(store);
  driver.open();
  driver.send(read_request(5, {{.entry = 1, .offset = 4, .length_bytes = 3},
                               {.entry = 1, .offset = 8, .length_bytes = 100},
                               {.entry = 1, .offset = 1'000'000}}));
  auto items = collect(driver.replies);
  ASSERT_EQ(items.size(), 3U);
  EXPECT_EQ(items.at(0).content, "456");
  EXPECT_EQ(items.at(1).content, "89");
  EXPECT_EQ(items.at(2).content, "");
  driver.replies.clear();
  driver.send(read_request(6, {{.entry = 1, .offset = 9}, {.entry = 1, .offset = 10}}));
  items = collect(driver.replies);
  ASSERT_EQ(items.size(), 2U);
  EXPECT_EQ(items.at(0).content, "9");
  EXPECT_EQ(items.at(1).content, "");
}

TEST(Session, ReportsWhatChangedUnderneathAndServesTheRest) {
  FakeStore store;
  const std::string big(300'000, 'x');
  store.set_files({"a", "b", "c", big, "e", "f"});
  auto& files = store.generation->files;
  files[1].now.mtime_ns += 1;    // Modified.
  files[2].open_errno = ENOENT;  // Vanished.
  files[3].open_errno = EACCES;  // Unreadable.
  files[4].now.size_bytes += 1;  // Large, grown.
  files[5].now.ctime_s += 1;     // Only chmod or link: served, and reported for a rescan.
  Driver driver(store);
  driver.open();
  driver.send(read_request(5, {{.entry = 1},
                               {.entry = 2},
                               {.entry = 3},
                               {.entry = 4},
                               {.entry = 5},
                               {.entry = 6},
                               {.entry = 99}}));
  const auto items = collect(driver.replies);
  ASSERT_EQ(items.size(), 7U);
  EXPECT_EQ(items.at(0).status, Code::kStale);
  EXPECT_EQ(items.at(1).status, Code::kStale);
  EXPECT_EQ(items.at(2).status, Code::kIo);
  EXPECT_EQ(items.at(3).status, Code::kStale);
  EXPECT_EQ(items.at(4).status, Code::kOk);
  EXPECT_EQ(items.at(4).content, "e");
  EXPECT_EQ(items.at(5).content, "f");
  EXPECT_EQ(items.at(6).status, Code::kNotFound);
  EXPECT_EQ(store.generation->reported_stale, (std::vector<uint32_t>{1, 2, 4, 5}));
}

TEST(Session, LargeFilesThatChangeWhileTheyAreSentAreStale) {
  FakeStore store;
  store.set_files({std::string(3'000'000, 'x'), "next"});
  Driver driver(store);
  driver.open();
  driver.drains = false;
  driver.send(read_request(5, {{.entry = 1}, {.entry = 2}}));
  ASSERT_FALSE(driver.outbox().empty());
  store.generation->files[1].now.mtime_s += 1;
  driver.drains = true;
  driver.run();
  const auto items = collect(driver.replies);
  EXPECT_EQ(items.at(0).content.size(), 3'000'000U);
  EXPECT_EQ(items.at(0).status, Code::kStale);
  EXPECT_EQ(items.at(1).status, Code::kOk);
}

TEST(Session, FilesThatShrinkUnderAFrameAreStale) {
  FakeStore store;
  store.set_files({std::string(100'000, 'x')});
  Driver driver(store);
  driver.open();
  driver.drains = false;
  driver.send(read_request(5, {{.entry = 1}}));
  for (const OutItem& item : driver.outbox().items()) {
    if (item.is_range()) item.range.file->shrunk = true;
  }
  driver.drains = true;
  driver.run();
  EXPECT_EQ(collect(driver.replies).at(0).status, Code::kStale);
}

TEST(Session, HoldsNoMoreThanItsBoundForAClientThatDoesNotRead) {
  FakeStore store;
  store.set_files(std::vector<std::string>(1000, std::string(kSmallFileBytes, 's')));
  Driver driver(store);
  driver.open();
  driver.drains = false;
  std::vector<wire::ReadItem> items;
  for (uint32_t entry = 1; entry <= 1000; ++entry) {
    items.push_back({.entry = entry});
  }
  driver.send(read_request(5, items));
  EXPECT_LE(driver.largest_outbox, kOutboxHighWaterBytes + kSmallFileBytes + 64);
  EXPECT_LE(driver.file_requests * kSmallFileBytes,
            kOutboxHighWaterBytes + kLookaheadBytes + 2 * kSmallFileBytes);
  driver.drains = true;
  driver.run();
  EXPECT_EQ(collect(driver.replies).size(), 1000U);
}

TEST(Session, OpensFewLargeFilesAhead) {
  FakeStore store;
  store.set_files(std::vector<std::string>(100, std::string(kSmallFileBytes + 1, 'l')));
  Driver driver(store);
  driver.open();
  driver.drains = false;
  std::vector<wire::ReadItem> items;
  for (uint32_t entry = 1; entry <= 100; ++entry) {
    items.push_back({.entry = entry});
  }
  driver.send(read_request(5, items));
  EXPECT_LE(driver.file_requests, kMaxOpenFilesAhead);
  driver.drains = true;
  driver.run();
  const auto got = collect(driver.replies);
  EXPECT_EQ(got.size(), 100U);
  for (const auto& [index, item] : got) {
    EXPECT_EQ(item.status, Code::kOk) << index;
  }
}

TEST(Session, GivesNodesInTheOrderAskedAsOneZstdFrame) {
  FakeStore store;
  store.set_files({"a"});
  Driver driver(store);
  driver.open();
  Bytes bytes;
  wire::encode(wire::TreeRequest{.all = false, .nodes = {store.generation->root_digest}}, 3, bytes);
  driver.send(bytes);
  ASSERT_EQ(driver.replies.size(), 1U);
  EXPECT_EQ(driver.replies[0].header.flags, wire::kLast);
  std::string plain(1 << 16, '\0');
  plain.resize(ZSTD_decompress(plain.data(), plain.size(), driver.replies[0].payload.data(),
                               driver.replies[0].payload.size()));
  Reader reader(as_bytes(plain));
  EXPECT_EQ(hash::sha256(as_bytes(reader.counted(kMaxNodeBytes))), store.generation->root_digest);
  EXPECT_TRUE(reader.finish("nodes"));
}

TEST(Session, RequestsBehindAFailedOpenFailToo) {
  FakeStore store;
  store.set_files({"a"});
  Driver driver(store);
  driver.say_hello();
  Bytes bytes;
  wire::encode(wire::Open{.module = "other"}, 1, bytes);
  const Bytes read = read_request(2, {{.entry = 1}});
  bytes.insert(bytes.end(), read.begin(), read.end());
  driver.send(bytes);
  ASSERT_EQ(driver.replies.size(), 2U);
  for (const Reply& reply : driver.replies) {
    EXPECT_EQ(reply.header.type, Type::kError);
    EXPECT_EQ(wire::decode_error(as_bytes(reply.payload))->code, Code::kNotFound);
  }
  EXPECT_FALSE(driver.session().has_ended());
}

TEST(Session, AnswersGoneWhenTheGenerationWasDropped) {
  FakeStore store;
  store.set_files({"a"});
  Driver driver(store);
  driver.open();
  store.generation->kept = false;
  driver.send(read_request(2, {{.entry = 1}}));
  EXPECT_EQ(last_error(driver), Code::kGone);
  EXPECT_FALSE(driver.session().has_ended());
}

TEST(Session, SaysNotReadyWhileThereIsNoGeneration) {
  FakeStore store;
  store.open_failure = Errc::kGone;
  Driver driver(store);
  driver.say_hello();
  Bytes bytes;
  wire::encode(wire::Open{.module = "x"}, 1, bytes);
  driver.send(bytes);
  const auto error = wire::decode_error(as_bytes(driver.replies.back().payload));
  EXPECT_EQ(error->code, Code::kNotReady);
  EXPECT_GT(error->argument, 0U);
}

TEST(Session, DigestsComeFromTheirRangesAndNotFromBeyond) {
  FakeStore store;
  store.set_files({"a", "b", "c"});
  Driver driver(store);
  driver.open();
  Bytes bytes;
  wire::encode(wire::DigestsRequest{.kind = wire::DigestKind::kXxh128,
                                    .ranges = {{.first = 1, .count = 1}, {.first = 3, .count = 1}}},
               3, bytes);
  driver.send(bytes);
  ASSERT_EQ(driver.replies.size(), 1U);
  const auto& xxh = store.generation->xxh;
  EXPECT_EQ(driver.replies[0].payload,
            std::string(as_text(xxh[1].bytes)) + std::string(as_text(xxh[3].bytes)));
  bytes.clear();
  wire::encode(
      wire::DigestsRequest{.kind = wire::DigestKind::kSha256, .ranges = {{.first = 0, .count = 4}}},
      4, bytes);
  driver.send(bytes);
  EXPECT_EQ(driver.replies[1].payload, std::string(4 * 32, '\0'));
  bytes.clear();
  wire::encode(
      wire::DigestsRequest{.kind = wire::DigestKind::kXxh128, .ranges = {{.first = 2, .count = 3}}},
      5, bytes);
  driver.send(bytes);
  EXPECT_EQ(last_error(driver), Code::kNotFound);
}

TEST(Session, StopsReadingAtTheBoundOnRequests) {
  FakeStore store;
  store.set_files({"a"});
  Driver driver(store);
  driver.open();
  driver.drains = false;
  // Fill the outbox first, so that nothing is answered.
  driver.outbox().push(Bytes(kOutboxHighWaterBytes, 0));
  for (uint32_t id = 10; driver.session().wants_input(); ++id) {
    ASSERT_LT(id, 10 + 2 * kMaxRequestsInFlight);
    driver.send(read_request(id, {{.entry = 1}}));
  }
  EXPECT_FALSE(driver.session().has_ended());
}

TEST(Session, RefusesAnIdThatIsInUse) {
  FakeStore store;
  store.set_files({"a"});
  Driver driver(store);
  driver.open();
  driver.drains = false;
  driver.outbox().push(Bytes(kOutboxHighWaterBytes, 0));
  driver.send(read_request(5, {{.entry = 1}}));
  driver.send(read_request(5, {{.entry = 1}}));
  EXPECT_TRUE(driver.session().has_ended());
  EXPECT_EQ(driver.session().outcome(), Code::kProtocol);
}

TEST(Session, CancelStopsARequestAndIsAnswered) {
  FakeStore store;
  store.set_files({std::string(50'000'000, 'x'), "small"});
  Driver driver(store);
  driver.open();
  driver.drains = false;
  driver.send(read_request(5, {{.entry = 1}}));
  Bytes bytes;
  wire::encode_empty(Type::kCancel, 5, bytes);
  const Bytes next = read_request(6, {{.entry = 2}});
  bytes.insert(bytes.end(), next.begin(), next.end());
  driver.send(bytes);
  driver.drains = true;
  driver.run();
  size_t data_bytes = 0;
  bool cancelled = false;
  std::string after;
  for (const Reply& reply : driver.replies) {
    if (reply.header.type == Type::kData && reply.header.request == 5) {
      EXPECT_FALSE(cancelled);
      data_bytes += reply.payload.size();
    }
    if (reply.header.type == Type::kCancelled) cancelled = true;
    if (reply.header.request == 6) after += reply.payload;
  }
  EXPECT_TRUE(cancelled);
  EXPECT_LT(data_bytes, 5'000'000U);
  EXPECT_EQ(after, "small");
}

TEST(Session, GoodbyeIsAnsweredAfterWhatWasAsked) {
  FakeStore store;
  store.set_files({"a"});
  Driver driver(store);
  driver.open();
  Bytes bytes = read_request(5, {{.entry = 1}});
  wire::encode_empty(Type::kGoodbye, 0, bytes);
  driver.send(bytes);
  ASSERT_EQ(driver.replies.size(), 2U);
  EXPECT_EQ(driver.replies[0].payload, "a");
  EXPECT_EQ(driver.replies[1].header.type, Type::kGoodbye);
  EXPECT_TRUE(driver.session().has_ended());
  EXPECT_EQ(driver.session().outcome(), Code::kOk);
}

TEST(Session, CountsEveryByteItPutsOut) {
  FakeStore store;
  store.set_files({"a", std::string(100'000, 'x')});
  Driver driver(store);
  driver.open();
  Bytes bytes = read_request(5, {{.entry = 1}, {.entry = 2}});
  wire::encode(wire::TreeRequest{.all = false, .nodes = {store.generation->root_digest}}, 3, bytes);
  wire::encode_empty(Type::kPing, 9, bytes);
  wire::encode_empty(Type::kGoodbye, 0, bytes);
  driver.send(bytes);
  const Counters& counters = driver.session().counters();
  EXPECT_EQ(
      counters.bytes_hello + counters.bytes_manifest + counters.bytes_data + counters.bytes_other,
      driver.outbox().pushed_position());
  EXPECT_EQ(counters.files_sent, 2U);
}

// Every single flipped byte of a conversation: the session answers or ends, and never does worse.
TEST(Session, SurvivesEveryFlippedByte) {
  Bytes conversation;
  wire::encode(wire::ClientHello{}, conversation);
  wire::encode(wire::Open{.module = "m"}, 1, conversation);
  wire::encode(wire::TreeRequest{.all = true, .nodes = {}}, 2, conversation);
  wire::encode(wire::DigestsRequest{.ranges = {{.first = 1, .count = 1}}}, 3, conversation);
  wire::encode(wire::ReadRequest{.items = {{.entry = 1}, {.entry = 2}}}, 4, conversation);
  wire::encode_empty(Type::kGoodbye, 0, conversation);
  for (size_t at = 0; at < conversation.size(); ++at) {
    for (const int flip : {0x01, 0x02, 0x10, 0x80, 0xFF}) {
      FakeStore store;
      store.set_files({"a", std::string(70'000, 'b')});
      Bytes bad = conversation;
      bad[at] = static_cast<uint8_t>(bad[at] ^ flip);
      Driver driver(store);
      driver.send(bad);
    }
  }
}

}  // namespace
}  // namespace superlifter::session
