#include "core/tree/table.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace superlifter::tree {
namespace {

Record file(uint64_t size_bytes) {
  Record record;
  record.kind = Kind::kFile;
  record.size_bytes = size_bytes;
  record.mode = 0644;
  return record;
}

Record directory() {
  Record record;
  record.kind = Kind::kDirectory;
  record.mode = 0755;
  return record;
}

// "", "bin", "bin/ls", "bin/x" (symlink), "doc", "doc/a" (5 bytes), "doc/b" (hard link to doc/a)
Table sample() {
  Table table;
  EXPECT_TRUE(table.add(directory(), kNoEntry, ""));
  EXPECT_TRUE(table.add(directory(), 0, "bin"));
  EXPECT_TRUE(table.add(file(7), 1, "ls"));
  Record link;
  link.kind = Kind::kSymlink;
  EXPECT_TRUE(table.add(link, 1, "x", "../doc/a"));
  EXPECT_TRUE(table.add(directory(), 0, "doc"));
  EXPECT_TRUE(table.add(file(5), 4, "a"));
  Record second = file(5);
  second.link_or_files = 5;
  EXPECT_TRUE(table.add(second, 4, "b"));
  table.finish();
  return table;
}

TEST(Table, CountsSubtreesAndBytesOnce) {
  const Table table = sample();
  const TableView view = table.view();
  EXPECT_EQ(view.totals(), (Totals{.entries = 6, .files = 3, .bytes = 12}));
  EXPECT_EQ(view.record(1).subtree_entries, 2U);
  EXPECT_EQ(view.record(4).link_or_files, 2U);
  EXPECT_EQ(view.record(4).size_bytes, 5U);
  EXPECT_EQ(view.end_of(1), 4U);
  EXPECT_TRUE(view.validate()) << view.validate().error().message;
}

TEST(Table, FindsEveryPathItGives) {
  const Table table = sample();
  const TableView view = table.view();
  const std::vector<std::string> paths = {"", "bin", "bin/ls", "bin/x", "doc", "doc/a", "doc/b"};
  for (uint32_t entry = 0; entry < view.count(); ++entry) {
    EXPECT_EQ(view.path(entry), paths[entry]);
    EXPECT_EQ(view.find(paths[entry]), entry);
  }
  EXPECT_EQ(view.find("bin/none"), kNoEntry);
  EXPECT_EQ(view.find("bin/ls/deeper"), kNoEntry);
  EXPECT_EQ(view.target(3), "../doc/a");
}

TEST(Table, InternsOwnerNamesFromOne) {
  Table table;
  EXPECT_EQ(table.intern_owner(""), 0);
  EXPECT_EQ(table.intern_owner("root"), 1);
  EXPECT_EQ(table.intern_owner("www"), 2);
  EXPECT_EQ(table.intern_owner("root"), 1);
  EXPECT_EQ(table.view().owner_name(2), "www");
}

// Every single changed byte of the record array is either refused or leaves all look-ups in bounds.
TEST(Table, ValidateRefusesWhatWouldLeadOutOfBounds) {
  const Table table = sample();
  const TableView good = table.view();
  std::vector<Record> records(good.records().begin(), good.records().end());
  auto* bytes = reinterpret_cast<uint8_t*>(records.data());
  const size_t size = records.size() * sizeof(Record);
  for (size_t at = 0; at < size; ++at) {
    for (const int flip : {0x01, 0x80, 0xFF}) {
      bytes[at] = static_cast<uint8_t>(bytes[at] ^ flip);
      const TableView view(records, good.strings(), good.owner_names());
      if (view.validate()) {
        for (uint32_t entry = 0; entry < view.count(); ++entry) {
          EXPECT_LE(view.path(entry).size(), kMaxPathBytes);
          if (view.record(entry).is_symlink()) {
            EXPECT_LE(view.target(entry).size(), kMaxSymlinkBytes);
          }
        }
        static_cast<void>(view.find("doc/b"));
      }
      bytes[at] = static_cast<uint8_t>(bytes[at] ^ flip);
    }
  }
  EXPECT_TRUE(TableView(records, good.strings(), good.owner_names()).validate());
}

TEST(Table, ValidateRefusesNamesOutOfOrder) {
  Table table;
  ASSERT_TRUE(table.add(directory(), kNoEntry, ""));
  ASSERT_TRUE(table.add(file(1), 0, "b"));
  ASSERT_TRUE(table.add(file(1), 0, "a"));
  table.finish();
  EXPECT_FALSE(table.view().validate());
}

TEST(Table, ValidateRefusesBadNames) {
  for (const char* name : {".", "..", "a/b", ""}) {
    Table table;
    ASSERT_TRUE(table.add(directory(), kNoEntry, ""));
    ASSERT_TRUE(table.add(file(1), 0, name));
    table.finish();
    EXPECT_FALSE(table.view().validate()) << name;
  }
}

}  // namespace
}  // namespace superlifter::tree
