#include "core/session/read_answer.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <random>
#include <string>
#include <vector>

#include "core/base/limits.h"
#include "core/wire/codec.h"
#include "tests/core/session/driver.h"
#include "tests/support/fake_store.h"

namespace superlifter::session {
namespace {

using tests::FakeStore;
using wire::Code;
using wire::Type;

// --- Items of one entry ------------------------------------------------------------------------

TEST(ReadAnswer, SmallItemsOfOneEntryShareAnOpen) {
  FakeStore store;
  store.set_files({"0123456789", "abc", "xyz"});
  Driver driver(store);
  driver.open();
  driver.send(read_request(5, {{.entry = 1, .offset = 1, .length_bytes = 2},
                               {.entry = 1, .offset = 5, .length_bytes = 1},
                               {.entry = 1, .offset = 100, .length_bytes = 1},
                               {.entry = 2},
                               {.entry = 1, .offset = 0, .length_bytes = 3}}));
  EXPECT_EQ(driver.file_requests, 3U);
  const auto items = collect(driver.replies);
  const std::vector<std::string> expected = {"12", "5", "", "abc", "012"};
  ASSERT_EQ(items.size(), expected.size());
  for (const auto& [index, item] : items) {
    EXPECT_EQ(item.content, expected[index]);
    EXPECT_EQ(item.status, Code::kOk);
  }
  EXPECT_EQ(count_of(driver.replies, Type::kData), 5U);
  EXPECT_EQ(driver.session().counters().files_sent, 3U);
}

TEST(ReadAnswer, AGroupEndsAtItsBounds) {
  FakeStore store;
  store.set_files({std::string(200'000, 'a')});
  const auto opens = [&](size_t count, uint64_t length) {
    Driver driver(store);
    driver.open();
    std::vector<wire::ReadItem> items;
    for (size_t i = 0; i < count; ++i)
      items.push_back({.entry = 1, .offset = i * length, .length_bytes = length});
    driver.send(read_request(5, items));
    EXPECT_EQ(collect(driver.replies).size(), count);
    return driver.file_requests;
  };
  EXPECT_EQ(opens(kMaxRangesTogether, 10), 1U);
  EXPECT_EQ(opens(kMaxRangesTogether + 1, 10), 2U);
  EXPECT_EQ(opens(2, kSmallFileBytes / 2), 1U);
  EXPECT_EQ(opens(2, kSmallFileBytes / 2 + 1), 2U);
  EXPECT_EQ(opens(3, kSmallFileBytes / 2), 2U);
}

TEST(ReadAnswer, ALargeItemBetweenSmallOnesIsByItself) {
  FakeStore store;
  const std::string content = text_of(300'000);
  store.set_files({content});
  Driver driver(store);
  driver.open();
  driver.send(read_request(5, {{.entry = 1, .offset = 0, .length_bytes = 5},
                               {.entry = 1, .offset = 5, .length_bytes = 200'000},
                               {.entry = 1, .offset = 200'005, .length_bytes = 5}}));
  EXPECT_EQ(driver.file_requests, 4U);  // Small, open, small, recheck.
  const auto items = collect(driver.replies);
  ASSERT_EQ(items.size(), 3U);
  EXPECT_EQ(items.at(0).content, content.substr(0, 5));
  EXPECT_EQ(items.at(1).content, content.substr(5, 200'000));
  EXPECT_EQ(items.at(2).content, content.substr(200'005, 5));
}

TEST(ReadAnswer, EachItemOfAStaleFileIsToldSoAndTheFileReportedOnce) {
  FakeStore store;
  store.set_files({"0123456789", "fine"});
  store.generation->files[1].now.mtime_ns += 1;
  Packer packer;
  for (const bool may_pack : {false, true}) {
    store.generation->reported_stale.clear();
    Driver driver(store, &packer);
    driver.open();
    driver.send(read_request(5,
                             {{.entry = 1, .offset = 0, .length_bytes = 1},
                              {.entry = 1, .offset = 4, .length_bytes = 1},
                              {.entry = 2}},
                             may_pack));
    const auto items = collect(driver.replies);
    ASSERT_EQ(items.size(), 3U);
    EXPECT_EQ(items.at(0).status, Code::kStale);
    EXPECT_EQ(items.at(1).status, Code::kStale);
    EXPECT_EQ(items.at(0).content + items.at(1).content, "");
    EXPECT_EQ(items.at(2).content, "fine");
    EXPECT_EQ(store.generation->reported_stale, std::vector<uint32_t>{1});
    EXPECT_EQ(driver.session().counters().files_stale, 1U);
  }
}

// A file that lost its end under the same stamps gives fewer bytes than its ranges say.
TEST(ReadAnswer, RangesThatGiveFewerBytesAreStale) {
  FakeStore store;
  store.set_files({"0123456789"});
  store.generation->files[1].content = "01234";
  Driver driver(store);
  driver.open();
  driver.send(read_request(5, {{.entry = 1, .offset = 0, .length_bytes = 2},
                               {.entry = 1, .offset = 4, .length_bytes = 3}}));
  EXPECT_EQ(collect(driver.replies).at(0).status, Code::kStale);
  EXPECT_EQ(collect(driver.replies).at(1).status, Code::kStale);
}

// --- Packing -----------------------------------------------------------------------------------

TEST(ReadAnswer, PacksSmallItemsThatCompress) {
  FakeStore store;
  std::vector<std::string> contents;
  std::vector<wire::ReadItem> items;
  for (uint32_t i = 0; i < 200; ++i) {
    contents.push_back(text_of(100 + 37 * i, i + 1));
    items.push_back({.entry = i + 1});
  }
  items.push_back({.entry = 999});
  store.set_files(contents);
  Packer packer;
  Driver driver(store, &packer);
  driver.open();
  driver.send(read_request(5, items, true));
  EXPECT_EQ(count_of(driver.replies, Type::kPacked), driver.replies.size());
  EXPECT_EQ(driver.replies.size(), 3U);  // 760 KB in packs of 256 KiB.
  const auto got = collect(driver.replies);
  ASSERT_EQ(got.size(), items.size());
  for (uint32_t i = 0; i < 200; ++i) {
    EXPECT_EQ(got.at(i).content, contents[i]);
    EXPECT_EQ(got.at(i).status, Code::kOk);
  }
  EXPECT_EQ(got.at(200).status, Code::kNotFound);
  const Counters& counters = driver.session().counters();
  EXPECT_LT(counters.bytes_data, 400'000U);
  EXPECT_EQ(counters.bytes_hello + counters.bytes_manifest + counters.bytes_data,
            driver.outbox().pushed_position());
}

TEST(ReadAnswer, PacksNothingThatNobodyAllowed) {
  FakeStore store;
  store.set_files({text_of(50'000), text_of(500'000)});
  Packer packer;
  for (const bool may_pack : {false, true}) {
    Driver driver(store, may_pack ? nullptr : &packer);
    driver.open();
    driver.send(read_request(5, {{.entry = 1}, {.entry = 2}}, may_pack));
    EXPECT_EQ(count_of(driver.replies, Type::kPacked), 0U);
    EXPECT_EQ(driver.bytes_in_ranges, 500'000U);
    EXPECT_EQ(collect(driver.replies).at(1).status, Code::kOk);
  }
}

TEST(ReadAnswer, SendsNoisePlain) {
  FakeStore store;
  std::vector<std::string> contents;
  std::vector<wire::ReadItem> items;
  for (uint32_t i = 0; i < 100; ++i) {
    contents.push_back(noise_of(10'000, i + 1));
    items.push_back({.entry = i + 1});
  }
  store.set_files(contents);
  Packer packer;
  Driver driver(store, &packer);
  driver.open();
  driver.send(read_request(5, items, true));
  EXPECT_EQ(count_of(driver.replies, Type::kPacked), 0U);
  EXPECT_EQ(driver.session().counters().bytes_data, 100 * (10'000 + kFrameHeaderBytes));
  const auto got = collect(driver.replies);
  for (uint32_t i = 0; i < 100; ++i)
    EXPECT_EQ(got.at(i).content, contents[i]);
}

TEST(ReadAnswer, PacksLargeItemsThroughMemory) {
  FakeStore store;
  const std::vector<std::string> contents = {text_of(3'000'000), text_of(kSmallFileBytes + 1)};
  store.set_files(contents);
  Packer packer;
  Driver driver(store, &packer);
  driver.open();
  driver.send(read_request(5, {{.entry = 1}, {.entry = 2}}, true));
  EXPECT_EQ(driver.bytes_in_ranges, 0U);
  EXPECT_LT(driver.session().counters().bytes_data, 1'000'000U);
  const auto got = collect(driver.replies);
  ASSERT_EQ(got.size(), 2U);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(got.at(i).content, contents[i]);
    EXPECT_EQ(got.at(i).status, Code::kOk);
  }
  // Each chunk carried its own validators: the file need not be looked at again.
  for (const Reply& reply : unpacked(driver.replies))
    EXPECT_EQ(reply.header.type, Type::kData);
  EXPECT_EQ(driver.session().counters().files_sent, 2U);
}

TEST(ReadAnswer, LargeNoiseLeavesAsRangesAfterATry) {
  FakeStore store;
  const std::string content = noise_of(20'000'000);
  store.set_files({content});
  Packer packer;
  Driver driver(store, &packer);
  driver.open();
  driver.send(read_request(5, {{.entry = 1}}, true));
  EXPECT_EQ(count_of(driver.replies, Type::kPacked), 0U);
  EXPECT_GT(driver.bytes_in_ranges, 19'000'000U);
  const auto got = collect(driver.replies);
  EXPECT_EQ(got.at(0).content, content);
  EXPECT_EQ(got.at(0).status, Code::kOk);
  EXPECT_EQ(driver.replies.back().header.type, Type::kItem);
}

TEST(ReadAnswer, PacksAgainWhereAFileCompressesAgain) {
  FakeStore store;
  const std::string content = noise_of(2'000'000) + text_of(20'000'000) + noise_of(500'000);
  store.set_files({content});
  Packer packer;
  Driver driver(store, &packer);
  driver.open();
  driver.send(read_request(5, {{.entry = 1}}, true));
  EXPECT_LT(driver.session().counters().bytes_data, 12'000'000U);
  EXPECT_GT(driver.bytes_in_ranges, 1'000'000U);
  const auto got = collect(driver.replies);
  EXPECT_EQ(got.at(0).content, content);
  EXPECT_EQ(got.at(0).status, Code::kOk);
}

TEST(ReadAnswer, ALargeItemThatChangesWhileItIsPackedIsStale) {
  for (const int read_errno : {0, EIO}) {
    FakeStore store;
    store.set_files({text_of(5'000'000), "next"});
    Packer packer;
    Driver driver(store, &packer);
    driver.open();
    driver.drains = false;
    driver.answers = false;
    driver.send(read_request(5, {{.entry = 1}, {.entry = 2}}, true));
    driver.answer();  // The open.
    driver.run();
    ASSERT_FALSE(driver.pending.empty());
    driver.answer();  // Some chunks.
    driver.run();
    store.generation->files[1].now.mtime_s += 1;
    store.generation->files[1].read_errno = read_errno;
    driver.answers = driver.drains = true;
    driver.run();
    const auto items = collect(driver.replies);
    ASSERT_EQ(items.size(), 2U);
    EXPECT_GT(items.at(0).content.size(), 0U);
    EXPECT_LT(items.at(0).content.size(), 5'000'000U);
    EXPECT_EQ(items.at(0).status, read_errno == 0 ? Code::kStale : Code::kIo);
    EXPECT_EQ(items.at(1).content, "next");
    EXPECT_EQ(items.at(1).status, Code::kOk);
  }
}

TEST(ReadAnswer, ALargeItemThatChangesAfterItsRangesIsStale) {
  FakeStore store;
  // Ends in text, so that its last bytes go through memory.
  store.set_files({noise_of(1'400'000) + text_of(100'000)});
  Packer packer;
  Driver driver(store, &packer);
  driver.open();
  driver.drains = false;
  driver.send(read_request(5, {{.entry = 1}}, true));
  driver.drain();
  driver.session().advance(driver.outbox());
  store.generation->files[1].now.mtime_s += 1;
  driver.drains = true;
  driver.run();
  EXPECT_EQ(collect(driver.replies).at(0).status, Code::kStale);
}

TEST(ReadAnswer, CancelForgetsWhatIsHeldAndOnItsWay) {
  FakeStore store;
  store.set_files({text_of(5'000'000), text_of(70'000), "small"});
  Packer packer;
  Driver driver(store, &packer);
  driver.open();
  driver.answers = false;
  driver.send(read_request(5, {{.entry = 3}, {.entry = 1}, {.entry = 2}}, true));
  for (int turn = 0; turn < 3; ++turn) {
    driver.answer();
    driver.run();
  }
  Bytes bytes = cancel_request(5);
  const Bytes next = read_request(6, {{.entry = 3}, {.entry = 2}}, true);
  bytes.insert(bytes.end(), next.begin(), next.end());
  driver.send(bytes);
  driver.answers = true;
  driver.run();
  size_t at = 0;
  while (driver.replies[at].header.type != Type::kCancelled)
    EXPECT_EQ(driver.replies[at++].header.request, 5U);
  driver.replies.erase(driver.replies.begin(),
                       driver.replies.begin() + static_cast<ptrdiff_t>(at) + 1);
  const auto items = collect(driver.replies);
  ASSERT_EQ(items.size(), 2U);
  EXPECT_EQ(items.at(0).content, "small");
  EXPECT_EQ(items.at(1).content, text_of(70'000));
}

TEST(ReadAnswer, HoldsNoMoreThanItsBoundWhilePacking) {
  for (const bool noise : {false, true}) {
    FakeStore store;
    std::vector<std::string> contents;
    std::vector<wire::ReadItem> items;
    for (uint32_t i = 0; i < 60; ++i) {
      const size_t size = i % 2 == 0 ? kSmallFileBytes : 1'000'000;
      contents.push_back(noise ? noise_of(size, i) : text_of(size, i));
      items.push_back({.entry = i + 1});
    }
    store.set_files(contents);
    Packer packer;
    Driver driver(store, &packer);
    driver.open();
    driver.drains = false;
    driver.send(read_request(5, items, true));
    EXPECT_LE(driver.largest_outbox, kOutboxHighWaterBytes + kDataFrameBytes + 64);
    if (noise) {
      EXPECT_LE(driver.bytes_asked,
                2 * kOutboxHighWaterBytes + kLookaheadBytes + kPackBytes + kSmallFileBytes);
    }
    driver.drains = true;
    driver.run();
    const auto got = collect(driver.replies);
    ASSERT_EQ(got.size(), items.size());
    for (const auto& [index, item] : got) {
      EXPECT_EQ(item.content, contents[index]) << index;
      EXPECT_EQ(item.status, Code::kOk) << index;
    }
  }
}

// All of it by chance: files, items, the order of the engine's answers, the pace of the peer.
TEST(ReadAnswer, GivesWhatWasAskedWhateverComesFirst) {
  std::random_device device;
  const unsigned seed = device();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const auto below = [&](size_t bound) { return random() % bound; };
  Packer packer;
  for (int round = 0; round < 40; ++round) {
    FakeStore store;
    std::vector<std::string> contents;
    for (unsigned i = 0; i < 12; ++i) {
      const size_t size = below(3) == 0 ? below(700'000) : below(20'000);
      contents.push_back(below(2) == 0 ? noise_of(size, i) : text_of(size, i + 1));
    }
    store.set_files(contents);
    Driver driver(store, &packer);
    driver.open();
    driver.backwards = below(2) == 0;
    std::vector<wire::ReadItem> items;
    std::vector<std::string> expected;
    while (items.size() < 150) {
      const auto entry = static_cast<uint32_t>(below(12)) + 1;
      const std::string& content = contents[entry - 1];
      uint64_t at = 0;
      for (size_t run = below(6) + 1; run > 0; --run) {
        at += below(content.size() / 4 + 2);
        const uint64_t length = below(content.size() / (below(3) == 0 ? 1 : 8) + 2);
        if (!items.empty() && items.back().entry == entry &&
            at < items.back().offset + items.back().length_bytes) {
          break;
        }
        items.push_back({.entry = entry, .offset = at, .length_bytes = length});
        expected.push_back(at >= content.size() ? ""
                           : length == 0        ? content.substr(at)
                                                : content.substr(at, length));
        if (length == 0) break;
        at += length;
      }
    }
    driver.answers = driver.drains = false;
    driver.send(read_request(5, items, below(4) != 0));
    for (int turn = 0; turn < 3000; ++turn) {
      driver.answers = below(2) == 0;
      driver.drains = below(3) == 0;
      driver.run();
      if (driver.session().is_idle() && driver.outbox().empty()) break;
    }
    const auto got = collect(driver.replies);
    ASSERT_EQ(got.size(), items.size()) << round;
    for (const auto& [index, item] : got) {
      ASSERT_EQ(item.content.size(), expected[index].size()) << round << " " << index;
      ASSERT_TRUE(item.content == expected[index]) << round << " " << index;
      ASSERT_EQ(item.status, Code::kOk) << round << " " << index;
    }
  }
}

}  // namespace
}  // namespace superlifter::session
