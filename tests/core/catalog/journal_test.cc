// journal: digests survive a kill, damage costs single records.
#include "core/catalog/journal.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <string>
#include <thread>
#include <vector>

#include "tests/support/temp_tree.h"

namespace superlifter::catalog {
namespace {

constexpr const char* kName = "digests.journal";
constexpr size_t kHeaderBytes = 16;
constexpr size_t kRecordBytes = 120;

JournalRecord record(uint64_t inode, uint8_t digest) {
  JournalRecord out;
  out.device = 7;
  out.validators = {
      .inode = inode, .size_bytes = 10, .mtime_s = -1, .ctime_s = 2, .mtime_ns = 3, .ctime_ns = 4};
  out.xxh.bytes.fill(digest);
  out.sha.bytes.fill(digest);
  return out;
}

Journal open_in(const tests::TempTree& tree) {
  Result<Journal> journal = Journal::open(tree.fd());
  CHECK(journal.has_value());
  return std::move(*journal);
}

// Digest that the journal has for the inode; 0 for none.
int found(const Journal& journal, uint64_t inode) {
  const std::optional<JournalRecord> hit = journal.find(7, record(inode, 0).validators);
  return hit ? hit->sha.bytes[31] : 0;
}

TEST(Journal, MakesNoFileUntilSomethingIsWritten) {
  const tests::TempTree tree;
  Journal journal = open_in(tree);
  journal.flush();
  EXPECT_EQ(journal.record_count(), 0U);
  EXPECT_FALSE(std::filesystem::exists(tree.path(kName)));
  EXPECT_EQ(found(journal, 1), 0);
}

TEST(Journal, FindsExactlyTheVersionThatWasHashed) {
  const tests::TempTree tree;
  {
    Journal journal = open_in(tree);
    for (const uint64_t inode : {5, 1, 9}) {
      journal.append(record(inode, static_cast<uint8_t>(inode + 100)));
    }
    journal.flush();
  }
  const Journal journal = open_in(tree);
  EXPECT_EQ(journal.record_count(), 3U);
  for (const uint64_t inode : {5, 1, 9}) {
    EXPECT_EQ(found(journal, inode), static_cast<int>(inode + 100));
  }
  EXPECT_EQ(found(journal, 2), 0);
  EXPECT_FALSE(journal.find(8, record(5, 0).validators));
  Validators changed = record(5, 0).validators;
  changed.ctime_ns += 1;
  EXPECT_FALSE(journal.find(7, changed));
  changed = record(5, 0).validators;
  changed.size_bytes += 1;
  EXPECT_FALSE(journal.find(7, changed));
}

TEST(Journal, LetsTheLatestOfOneFileCount) {
  const tests::TempTree tree;
  {
    Journal journal = open_in(tree);
    journal.append(record(5, 1));
    journal.append(record(5, 2));
    journal.flush();
    journal.append(record(5, 3));
    journal.flush();
  }
  const Journal journal = open_in(tree);
  EXPECT_EQ(journal.record_count(), 1U);
  EXPECT_EQ(found(journal, 5), 3);
}

TEST(Journal, CutsATornTailOffAndGoesOn) {
  const tests::TempTree tree;
  {
    Journal journal = open_in(tree);
    journal.append(record(1, 1));
    journal.append(record(2, 2));
    journal.flush();
  }
  const std::string whole = tree.read(kName);
  ASSERT_EQ(whole.size(), kHeaderBytes + 2 * kRecordBytes);
  for (size_t size = 0; size < whole.size(); ++size) {
    tree.write(kName, whole.substr(0, size));
    {
      Journal journal = open_in(tree);
      EXPECT_EQ(found(journal, 1) == 1, size >= kHeaderBytes + kRecordBytes);
      EXPECT_EQ(found(journal, 2), 0);
      journal.append(record(3, 3));
      journal.flush();
    }
    const Journal journal = open_in(tree);
    EXPECT_EQ(found(journal, 3), 3) << size;
    EXPECT_EQ(found(journal, 1) == 1, size >= kHeaderBytes + kRecordBytes);
  }
}

TEST(Journal, PassesOverEveryFlippedByte) {
  const tests::TempTree tree;
  {
    Journal journal = open_in(tree);
    journal.append(record(1, 1));
    journal.append(record(2, 2));
    journal.flush();
  }
  const std::string whole = tree.read(kName);
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string bad = whole;
    bad[at] = static_cast<char>(bad[at] ^ 0x10);
    tree.write(kName, bad);
    const Journal journal = open_in(tree);
    const bool header = at < kHeaderBytes;
    const bool first = at < kHeaderBytes + kRecordBytes;
    EXPECT_EQ(found(journal, 1), header || first ? 0 : 1) << at;
    EXPECT_EQ(found(journal, 2), header || !first ? 0 : 2) << at;
  }
}

TEST(Journal, RemembersWhereSignaturesAreAndTheLatestPack) {
  const tests::TempTree tree;
  {
    Journal journal = open_in(tree);
    EXPECT_EQ(journal.last_pack(), 0U);
    JournalRecord with = record(1, 1);
    with.pack = 4;
    with.signature = 36;
    journal.append(with);
    with = record(2, 2);
    with.pack = 5;
    with.signature = uint64_t{1} << 40;
    journal.append(with);
    journal.append(record(3, 3));  // Too small to have one.
    journal.flush();
  }
  const Journal journal = open_in(tree);
  EXPECT_EQ(journal.last_pack(), 5U);
  const std::optional<JournalRecord> second = journal.find(7, record(2, 0).validators);
  ASSERT_TRUE(second.has_value());
  EXPECT_EQ(second->pack, 5U);
  EXPECT_EQ(second->signature, uint64_t{1} << 40);
  EXPECT_EQ(journal.find(7, record(3, 0).validators)->pack, 0U);
}

TEST(Journal, IsRemoved) {
  const tests::TempTree tree;
  Journal journal = open_in(tree);
  journal.append(record(1, 1));
  journal.flush();
  EXPECT_TRUE(std::filesystem::exists(tree.path(kName)));
  journal.remove();
  EXPECT_FALSE(std::filesystem::exists(tree.path(kName)));
}

TEST(Journal, TakesRecordsFromManyThreads) {
  const tests::TempTree tree;
  constexpr uint64_t kEach = 2000;
  {
    Journal journal = open_in(tree);
    {
      std::vector<std::jthread> threads;
      for (uint64_t t = 0; t < 4; ++t) {
        threads.emplace_back([&journal, t] {
          for (uint64_t i = 0; i < kEach; ++i) {
            journal.append(record(1 + t * kEach + i, 1));
          }
        });
      }
    }
    journal.flush();
  }
  const Journal journal = open_in(tree);
  EXPECT_EQ(journal.record_count(), 4 * kEach);
  EXPECT_EQ(found(journal, 4 * kEach), 1);
}

TEST(Journal, SaysNothingFatalWhenItCannotWrite) {
  const tests::TempTree tree;
  Journal journal = open_in(tree);
  tree.make_directory(kName);  // In the way.
  journal.append(record(1, 1));
  journal.flush();
  journal.append(record(2, 2));
  journal.flush();
  EXPECT_EQ(journal.record_count(), 0U);
}

}  // namespace
}  // namespace superlifter::catalog
