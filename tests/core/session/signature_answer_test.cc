#include "core/session/signature_answer.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <random>
#include <string>
#include <vector>

#include "core/base/coding.h"
#include "core/base/limits.h"
#include "core/delta/block_length.h"
#include "core/delta/signature.h"
#include "core/wire/codec.h"
#include "tests/core/session/driver.h"
#include "tests/support/fake_store.h"

namespace superlifter::session {
namespace {

using tests::FakeStore;
using wire::Code;
using wire::SignatureItem;
using wire::Type;

constexpr uint64_t kAll = INT64_MAX;

Bytes signature_request(uint32_t id, unsigned level, unsigned width,
                        std::vector<SignatureItem> items) {
  Bytes bytes;
  wire::encode(
      wire::SignatureRequest{.level = level, .width_bytes = width, .items = std::move(items)}, id,
      bytes);
  return bytes;
}

// The joined payloads of SUMS; only the last frame has the flag.
std::string joined(const std::vector<Reply>& replies) {
  std::string out;
  for (size_t i = 0; i < replies.size(); ++i) {
    EXPECT_EQ(replies[i].header.type, Type::kSums);
    EXPECT_EQ(replies[i].header.flags, i + 1 == replies.size() ? wire::kLast : 0);
    out += replies[i].payload;
  }
  return out;
}

// What the answer to one item should be.
std::string sums_of(std::string_view content, unsigned level, unsigned width, uint64_t first = 0,
                    uint64_t count = kAll) {
  std::string out(1, '\0');
  const uint64_t length = delta::block_length_bytes(level);
  const uint64_t blocks = delta::block_count(content.size(), level);
  for (uint64_t block = first; block < blocks && block - first < count; ++block) {
    const std::string_view bytes = content.substr(block * length, length);
    const delta::BlockSum sum = delta::block_sum(as_bytes(bytes), level);
    Bytes whole;
    Writer writer(whole);
    writer.u32(sum.weak);    // [sum-weak]
    writer.u32(sum.strong);  // [sum-strong]
    out += as_text(ByteView(whole).first(width));
  }
  return out;
}

std::string failed(Code code) {
  return {static_cast<char>(code)};
}

std::string ask(FakeStore& store, const Bytes& request) {
  Driver driver(store);
  driver.open();
  driver.send(request);
  return joined(driver.replies);
}

const std::vector<std::string>& contents_of_all_lengths() {
  static const std::vector<std::string> contents = [] {
    std::vector<std::string> made;
    for (const size_t size : {0, 1, 63, 64, 65, 1023, 1024, 1025, 2047, 2048, 2049, 8192, 65'535,
                              65'536, 65'537, 131'073, 300'000, 1'100'000}) {
      made.push_back(noise_of(size, static_cast<unsigned>(size)));
    }
    return made;
  }();
  return contents;
}

// Kept or made on demand: the same sums, those that the plain definition gives.
TEST(SignatureAnswer, GivesTheSumsOfEachLevelAndWidth) {
  const std::vector<std::string>& contents = contents_of_all_lengths();
  std::vector<SignatureItem> all;
  for (uint32_t entry = 1; entry <= contents.size(); ++entry)
    all.push_back({.entry = entry, .first_block = 0, .block_count = kAll});
  FakeStore bare;
  bare.set_files(contents);
  FakeStore keeping;
  keeping.set_files(contents);
  keeping.keep_signatures(10);
  FakeStore coarse;
  coarse.set_files(contents);
  coarse.keep_signatures(14);
  for (unsigned level = delta::kFinestLevel; level <= delta::kCoarsestLevel; level += 2) {
    for (unsigned width = delta::kLeastWidth; width <= delta::kMostWidth; ++width) {
      if (level > 10 && width != 4 && width != 7) continue;
      for (FakeStore* store : {&bare, &keeping, &coarse}) {
        std::string expected;
        for (uint32_t entry = 1; entry <= contents.size(); ++entry) {
          const auto kept = store->generation->signature(entry);
          const bool known =
              level <= delta::kMostOnDemandLevel || (kept && kept->layout.has_level(level));
          expected += known ? sums_of(contents[entry - 1], level, width) : failed(Code::kNotFound);
        }
        ASSERT_TRUE(ask(*store, signature_request(5, level, width, all)) == expected)
            << level << " " << width;
      }
    }
  }
}

TEST(SignatureAnswer, CutsBlocksAtTheEndOfTheFile) {
  FakeStore store;
  const std::string content = noise_of(10'000);
  store.set_files({content});
  for (const bool kept : {false, true}) {
    if (kept) store.keep_signatures(10);
    for (const unsigned level : {8U, 10U}) {
      const uint64_t blocks = delta::block_count(content.size(), level);
      std::string expected;
      std::vector<SignatureItem> items;
      for (const auto& [first, count] : std::vector<std::pair<uint64_t, uint64_t>>{
               {0, 1}, {2, 3}, {blocks - 1, 1}, {blocks, 1}, {blocks + 5, kAll}}) {
        items.push_back({.entry = 1, .first_block = first, .block_count = count});
        expected += sums_of(content, level, 5, first, count);
      }
      EXPECT_EQ(ask(store, signature_request(5, level, 5, items)), expected);
      const std::vector<SignatureItem> far = {
          {.entry = 1, .first_block = INT64_MAX, .block_count = INT64_MAX}};
      EXPECT_EQ(ask(store, signature_request(5, level, 5, far)), failed(Code::kOk));
    }
  }
}

TEST(SignatureAnswer, ItemsWithoutAFileAreNotFound) {
  FakeStore store;
  store.set_files({"abc"});
  for (const unsigned level : {6U, 16U, 18U}) {
    const std::string expected = failed(Code::kNotFound) +
                                 (level > 16 ? failed(Code::kNotFound) : sums_of("abc", level, 8)) +
                                 failed(Code::kNotFound);
    EXPECT_EQ(ask(store, signature_request(5, level, 8,
                                           {{.entry = 0, .first_block = 0, .block_count = 1},
                                            {.entry = 1, .first_block = 0, .block_count = 1},
                                            {.entry = 99, .first_block = 0, .block_count = 1}})),
              expected);
  }
}

TEST(SignatureAnswer, ReadsThePackOnceForManyItems) {
  FakeStore store;
  store.set_files(std::vector<std::string>(1000, noise_of(5000)));
  store.keep_signatures(10);
  std::vector<SignatureItem> items;
  std::string expected;
  for (uint32_t entry = 1; entry <= 1000; ++entry) {
    items.push_back({.entry = entry, .first_block = 1, .block_count = 3});
    expected += sums_of(noise_of(5000), 10, 6, 1, 3);
  }
  Driver driver(store);
  driver.open();
  driver.send(signature_request(5, 10, 6, items));
  EXPECT_EQ(joined(driver.replies), expected);
  EXPECT_EQ(driver.file_requests, (1000 + kMaxRangesTogether - 1) / kMaxRangesTogether);
  EXPECT_EQ(driver.session().counters().bytes_on_demand, 0U);
}

TEST(SignatureAnswer, ReadsAFileOnceForItsItems) {
  FakeStore store;
  const std::string content = noise_of(400'000);
  store.set_files({content, content});
  std::vector<SignatureItem> items;
  std::string expected;
  for (uint32_t entry = 1; entry <= 2; ++entry) {
    for (uint64_t i = 0; i < kMaxRangesTogether; ++i) {
      items.push_back({.entry = entry, .first_block = 20 * i, .block_count = 4});
      expected += sums_of(content, 8, 6, 20 * i, 4);
    }
  }
  Driver driver(store);
  driver.open();
  driver.send(signature_request(5, 8, 6, items));
  EXPECT_EQ(joined(driver.replies), expected);
  EXPECT_EQ(driver.file_requests, 2U);
  const Counters& counters = driver.session().counters();
  EXPECT_EQ(counters.bytes_on_demand, 2 * kMaxRangesTogether * 4 * 256);
  EXPECT_EQ(counters.bytes_signature, expected.size() + kFrameHeaderBytes);
  EXPECT_EQ(counters.bytes_hello + counters.bytes_manifest + counters.bytes_signature,
            driver.outbox().pushed_position());
}

TEST(SignatureAnswer, SumsNoMoreThanItsBudget) {
  FakeStore store;
  constexpr size_t kFileBytes = 64 << 20;
  const std::string content(kFileBytes, 'x');
  store.set_files({content, noise_of(5000)});
  store.generation->files[1].content.resize(kSmallFileBytes);  // More is never read.
  store.generation->files[1].content.shrink_to_fit();
  Driver driver(store);
  driver.open();
  // All of the budget but one block of the second file's. What was asked for counts, done or not.
  static_assert(kOnDemandBytes % kFileBytes == 0);
  std::vector<SignatureItem> items;
  for (size_t i = 0; i < kOnDemandBytes / kFileBytes; ++i) {
    items.push_back({.entry = 1, .first_block = i == 0 ? 1U : 0U, .block_count = kAll});
    driver.answers = false;
    driver.send(signature_request(7, 6, 4, {items.back()}));
    driver.send(cancel_request(7));
  }
  driver.answers = true;
  driver.run();
  driver.replies.clear();
  EXPECT_EQ(driver.session().counters().bytes_on_demand, kOnDemandBytes - 64);
  driver.send(signature_request(8, 6, 8,
                                {{.entry = 2, .first_block = 0, .block_count = 2},
                                 {.entry = 2, .first_block = 2, .block_count = 1},
                                 {.entry = 2, .first_block = 3, .block_count = 1}}));
  EXPECT_EQ(joined(driver.replies),
            failed(Code::kBusy) + sums_of(noise_of(5000), 6, 8, 2, 1) + failed(Code::kBusy));
  // Kept sums cost nothing of it.
  store.generation->files.erase(1);
  store.keep_signatures(10);
  driver.replies.clear();
  driver.send(signature_request(9, 10, 8, {{.entry = 2, .first_block = 0, .block_count = kAll}}));
  EXPECT_EQ(joined(driver.replies), sums_of(noise_of(5000), 10, 8));
}

// --- Files and packs that fail -----------------------------------------------------------------

TEST(SignatureAnswer, TellsOfEachItemWhatIsTheMatterWithItsFile) {
  FakeStore store;
  const std::string small = noise_of(3000);
  const std::string large = noise_of(100'000);
  store.set_files({small, large, small, large, small, large, small});
  auto& files = store.generation->files;
  files[1].now.mtime_ns += 1;
  files[2].now.mtime_ns += 1;
  files[3].open_errno = ENOENT;
  files[4].open_errno = ENOENT;
  files[5].open_errno = EACCES;
  files[6].open_errno = EACCES;
  std::vector<SignatureItem> items;
  for (uint32_t entry = 1; entry <= 7; ++entry)
    items.push_back({.entry = entry, .first_block = 0, .block_count = kAll});
  EXPECT_EQ(ask(store, signature_request(5, 8, 4, items)),
            failed(Code::kStale) + failed(Code::kStale) + failed(Code::kStale) +
                failed(Code::kStale) + failed(Code::kIo) + failed(Code::kIo) +
                sums_of(small, 8, 4));
  EXPECT_EQ(store.generation->reported_stale, (std::vector<uint32_t>{1, 2, 3, 4}));
}

TEST(SignatureAnswer, SumsAreZeroFromWhereALargeFileFails) {
  for (const int read_errno : {0, EIO}) {
    FakeStore store;
    const std::string content = noise_of(1'000'000);
    store.set_files({content, "next"});
    Driver driver(store);
    driver.open();
    driver.answers = false;
    driver.send(signature_request(5, 8, 4,
                                  {{.entry = 1, .first_block = 0, .block_count = kAll},
                                   {.entry = 2, .first_block = 0, .block_count = 1}}));
    driver.answer();  // The open, and the small file.
    driver.run();
    driver.answer();  // The first chunks.
    driver.run();
    store.generation->files[1].now.mtime_s += 1;
    store.generation->files[1].read_errno = read_errno;
    driver.answers = true;
    driver.run();
    const std::string got = joined(driver.replies);
    const std::string expected = sums_of(content, 8, 4);
    ASSERT_EQ(got.size(), expected.size() + 1 + 4);
    const size_t good = static_cast<size_t>(
        std::mismatch(expected.begin(), expected.end(), got.begin()).first - expected.begin());
    EXPECT_GE(good, kSmallFileBytes / 256 * 4);
    EXPECT_LT(good, expected.size());
    const size_t border = (good - 1) / 4 * 4 + 1;
    EXPECT_EQ(got.substr(border, expected.size() - border),
              std::string(expected.size() - border, '\0'));
    EXPECT_EQ(got.substr(expected.size()), sums_of("next", 8, 4));
  }
}

TEST(SignatureAnswer, ABrokenPackIsAnIoError) {
  FakeStore store;
  store.set_files({noise_of(5000), "short"});
  store.keep_signatures(10);
  const Bytes request = signature_request(5, 10, 4,
                                          {{.entry = 1, .first_block = 0, .block_count = kAll},
                                           {.entry = 1, .first_block = kAll, .block_count = 1},
                                           {.entry = 2, .first_block = 0, .block_count = kAll}});
  const std::string expected = failed(Code::kIo) + failed(Code::kIo) + sums_of("short", 10, 4);
  store.generation->pack_errno = EIO;
  EXPECT_EQ(ask(store, request), expected);
  store.generation->pack_errno = 0;
  store.generation->pack.pop_back();
  store.generation->pack.resize(30);
  EXPECT_EQ(ask(store, request), expected);
  EXPECT_TRUE(store.generation->reported_stale.empty());
}

// A signature of a file that is too large to have here: of 4 GiB, 32 MiB at level 10.
void set_huge_signature(FakeStore& store, size_t pack_bytes) {
  const delta::SignatureLayout layout(uint64_t{4} << 30, 10);
  store.generation->pack.assign(pack_bytes, 0x77);
  store.generation->signatures[1] = {
      .file = store.generation->pack_file, .offset = 0, .layout = layout};
}

TEST(SignatureAnswer, LongAnswersLeaveAsTheyGrowAndWaitForThePeer) {
  FakeStore store;
  store.set_files({"x"});
  set_huge_signature(store, 33 << 20);
  Driver driver(store);
  driver.open();
  driver.drains = false;
  driver.send(signature_request(5, 10, 7, {{.entry = 1, .first_block = 0, .block_count = kAll}}));
  EXPECT_LE(driver.largest_outbox, kOutboxHighWaterBytes + 2 * kPackBytes);
  EXPECT_LE(driver.bytes_asked, 2 * kOutboxHighWaterBytes + kLookaheadBytes);
  driver.drains = true;
  driver.run();
  EXPECT_EQ(joined(driver.replies), std::string(1, '\0') + std::string((4 << 20) * 7, '\x77'));
  EXPECT_GT(driver.replies.size(), 20U);
}

TEST(SignatureAnswer, SumsAreZeroFromWhereThePackEnds) {
  FakeStore store;
  store.set_files({"x"});
  set_huge_signature(store, 10 << 20);
  const std::string got = ask(
      store, signature_request(5, 10, 8, {{.entry = 1, .first_block = 0, .block_count = kAll}}));
  EXPECT_EQ(got,
            std::string(1, '\0') + std::string(10 << 20, '\x77') + std::string(22 << 20, '\0'));
}

// --- The session around it ---------------------------------------------------------------------

TEST(SignatureAnswer, NeedsAGenerationThatIsKept) {
  FakeStore store;
  store.set_files({"a"});
  const Bytes request =
      signature_request(5, 6, 4, {{.entry = 1, .first_block = 0, .block_count = 1}});
  Driver unopened(store);
  unopened.say_hello();
  unopened.send(request);
  EXPECT_EQ(last_error(unopened), Code::kNotFound);
  Driver driver(store);
  driver.open();
  store.generation->kept = false;
  driver.send(request);
  EXPECT_EQ(last_error(driver), Code::kGone);
  EXPECT_FALSE(driver.session().has_ended());
}

TEST(SignatureAnswer, BrokenRequestsEndTheSession) {
  const std::vector<std::vector<uint64_t>> broken = {{7, 8, 1, 1, 0, 1},
                                                     {4, 8, 1, 1, 0, 1},
                                                     {30, 8, 1, 1, 0, 1},
                                                     {6, 3, 1, 1, 0, 1},
                                                     {6, 9, 1, 1, 0, 1},
                                                     {6, 8, 0},
                                                     {6, 8, 1, 1, 0, 0},
                                                     {6, 8, 2, 1, 0, 1},
                                                     {6, 8, 1, 1, 0, 1, 0},
                                                     {6, 8, 4097},
                                                     {6, 8},
                                                     {6, 8, 1, 1, uint64_t{1} << 63, 1},
                                                     {6, 8, 1, 1, 0, uint64_t{1} << 63}};
  for (const std::vector<uint64_t>& numbers : broken) {
    FakeStore store;
    store.set_files({"a"});
    Driver driver(store);
    driver.open();
    Bytes payload;
    Writer writer(payload);
    for (const uint64_t number : numbers)
      writer.varint(number);
    Bytes bytes;
    wire::encode_frame_header({.length_bytes = static_cast<uint32_t>(payload.size()),
                               .type = Type::kSignature,
                               .flags = 0,
                               .request = 5},
                              bytes);
    bytes.insert(bytes.end(), payload.begin(), payload.end());
    driver.send(bytes);
    EXPECT_EQ(last_error(driver), Code::kProtocol);
    EXPECT_TRUE(driver.session().has_ended());
  }
}

TEST(SignatureAnswer, CancelStopsItInTheMiddle) {
  FakeStore store;
  const std::string content = noise_of(4'000'000);
  store.set_files({content, "small"});
  Driver driver(store);
  driver.open();
  driver.answers = false;
  driver.send(signature_request(5, 6, 8, {{.entry = 1, .first_block = 0, .block_count = kAll}}));
  for (int turn = 0; turn < 5; ++turn) {
    driver.answer();
    driver.run();
  }
  Bytes bytes = cancel_request(5);
  const Bytes next = signature_request(6, 6, 8, {{.entry = 2, .first_block = 0, .block_count = 1}});
  bytes.insert(bytes.end(), next.begin(), next.end());
  driver.send(bytes);
  driver.answers = true;
  driver.run();
  ASSERT_GE(driver.replies.size(), 2U);
  EXPECT_LT(driver.replies.size(), 20U);
  EXPECT_EQ(driver.replies[driver.replies.size() - 2].header.type, Type::kCancelled);
  EXPECT_EQ(driver.replies.back().payload, sums_of("small", 6, 8));
}

TEST(SignatureAnswer, AnswersTheSameHoweverTheBytesComeAndTheEngineAnswers) {
  FakeStore store;
  const std::vector<std::string>& contents = contents_of_all_lengths();
  store.set_files(contents);
  store.keep_signatures(12);
  std::vector<SignatureItem> items;
  std::mt19937 random(5);
  std::string expected;
  for (int i = 0; i < 400; ++i) {
    const auto entry = static_cast<uint32_t>(random() % contents.size()) + 1;
    const uint64_t first = random() % 20;
    const uint64_t count = random() % 100 == 0 ? kAll : 1 + random() % 50;
    if (!items.empty() && items.back().entry == entry) continue;
    items.push_back({.entry = entry, .first_block = first, .block_count = count});
    if (random() % 3 == 0 && count < 100)
      items.push_back({.entry = entry, .first_block = first + count + 2, .block_count = 1});
  }
  for (const unsigned level : {8U, 12U}) {
    expected.clear();
    for (const SignatureItem& item : items)
      expected += sums_of(contents[item.entry - 1], level, 6, item.first_block, item.block_count);
    for (const size_t step : {size_t{1}, size_t{100}, SIZE_MAX}) {
      for (const bool backwards : {false, true}) {
        Driver driver(store);
        driver.open();
        driver.backwards = backwards;
        driver.send(signature_request(5, level, 6, items), step);
        ASSERT_TRUE(joined(driver.replies) == expected) << level << " " << step;
      }
    }
  }
}

TEST(SignatureAnswer, OpensFewLargeFilesAhead) {
  FakeStore store;
  store.set_files(std::vector<std::string>(60, noise_of(kSmallFileBytes + 1)));
  std::vector<SignatureItem> items;
  for (uint32_t entry = 1; entry <= 60; ++entry)
    items.push_back({.entry = entry, .first_block = 0, .block_count = kAll});
  Driver driver(store);
  driver.open();
  driver.answers = false;
  driver.send(signature_request(5, 16, 4, items));
  EXPECT_EQ(driver.file_requests, kMaxOpenFilesAhead);
  driver.answer();
  driver.run();
  EXPECT_LE(driver.bytes_asked, kLookaheadBytes + 4 * kSmallFileBytes);
  driver.answers = true;
  driver.run();
  EXPECT_EQ(joined(driver.replies).size(), 60U * (1 + 2 * 4));
}

}  // namespace
}  // namespace superlifter::session
