// File work: what each kind of request answers, for files that are as expected and for those that
// are not.
#include "core/io/file_work.h"

#include <errno.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/base/limits.h"
#include "tests/core/io/io_support.h"
#include "tests/support/temp_tree.h"

namespace superlifter::io {
namespace {

using tests::open_request;
using tests::TempTree;

FileReply read_ranges(const TempTree& tree, const std::string& path,
                      std::vector<FileRequest::Range> ranges) {
  FileRequest request;
  request.id = 7;
  request.kind = FileRequest::Kind::kReadSmall;
  request.open = open_request(tree.fd(), path);
  request.ranges = std::move(ranges);
  return run_file_request(request);
}

FileReply read_small(const TempTree& tree, const std::string& path, uint64_t offset,
                     uint32_t length) {
  return read_ranges(tree, path, {{offset, length}});
}

FileReply open_and_keep(const TempTree& tree, const std::string& path) {
  FileRequest open;
  open.kind = FileRequest::Kind::kOpen;
  open.open = open_request(tree.fd(), path);
  return run_file_request(open);
}

TEST(FileWork, ReadsARangeWithItsValidators) {
  const TempTree tree;
  tree.write("a/b", "0123456789");
  const FileReply reply = read_small(tree, "a/b", 2, 5);
  EXPECT_EQ(reply.id, 7U);
  EXPECT_EQ(reply.sys_errno, 0);
  EXPECT_TRUE(reply.is_regular);
  EXPECT_EQ(as_text(reply.data), "23456");
  struct stat status{};
  ASSERT_EQ(stat(tree.path("a/b").c_str(), &status), 0);
  EXPECT_EQ(reply.validators.inode, status.st_ino);
  EXPECT_EQ(reply.validators.size_bytes, 10U);
  EXPECT_EQ(reply.validators.mtime_s, status.st_mtim.tv_sec);
  EXPECT_EQ(reply.validators.ctime_ns, static_cast<uint32_t>(status.st_ctim.tv_nsec));
}

TEST(FileWork, GivesFewerBytesWhereTheFileEnds) {
  const TempTree tree;
  tree.write("f", "0123456789");
  EXPECT_EQ(as_text(read_small(tree, "f", 8, 100).data), "89");
  EXPECT_TRUE(read_small(tree, "f", 10, 100).data.empty());
}

TEST(FileWork, ReadsSeveralRangesOneBehindTheOther) {
  const TempTree tree;
  tree.write("f", "0123456789");
  EXPECT_EQ(as_text(read_ranges(tree, "f", {{8, 1}, {0, 2}, {5, 0}, {3, 3}}).data), "801345");
  // Of each range the bytes there are.
  EXPECT_EQ(as_text(read_ranges(tree, "f", {{9, 5}, {1, 1}, {100, 3}}).data), "91");
  const FileReply none = read_ranges(tree, "f", {});
  EXPECT_TRUE(none.data.empty());
  EXPECT_TRUE(none.is_regular);
}

TEST(FileWork, ReadsAsManyRangesAndBytesAsAreAllowed) {
  const TempTree tree;
  tree.write("f", std::string(kSmallFileBytes + 1, 'x'));
  EXPECT_EQ(read_small(tree, "f", 0, kSmallFileBytes).data.size(), kSmallFileBytes);
  const std::vector<FileRequest::Range> most(kMaxRangesTogether, {5, 2});
  EXPECT_EQ(read_ranges(tree, "f", most).data.size(), 2 * kMaxRangesTogether);
}

TEST(FileWorkDeathTest, TakesNoMoreThanThat) {
  const TempTree tree;
  tree.write("f", "x");
  EXPECT_DEATH(read_small(tree, "f", 0, kSmallFileBytes + 1), "");
  EXPECT_DEATH(read_ranges(tree, "f", {{0, kSmallFileBytes}, {0, 1}}), "");
  EXPECT_DEATH(read_ranges(tree, "f", {kMaxRangesTogether + 1, {0, 1}}), "");
}

TEST(FileWork, ReadsRangesOfAnOpenFileWithItsValidators) {
  const TempTree tree;
  tree.write("f", "0123456789");
  FileRequest read;
  read.id = 9;
  read.kind = FileRequest::Kind::kReadOpen;
  read.file = open_and_keep(tree, "f").file;
  ASSERT_NE(read.file, nullptr);
  read.ranges = {{7, 2}, {0, 1}};
  const FileReply reply = run_file_request(read);
  EXPECT_EQ(reply.id, 9U);
  EXPECT_EQ(reply.sys_errno, 0);
  EXPECT_TRUE(reply.is_regular);
  EXPECT_EQ(as_text(reply.data), "780");
  EXPECT_EQ(reply.validators.size_bytes, 10U);
  EXPECT_EQ(reply.file, nullptr);
  tree.write("f", "ab");
  const FileReply after = run_file_request(read);
  EXPECT_EQ(as_text(after.data), "a");
  EXPECT_EQ(after.validators.size_bytes, 2U);
}

TEST(FileWork, SaysWhyAnOpenFails) {
  const TempTree tree;
  EXPECT_EQ(read_small(tree, "absent", 0, 1).sys_errno, ENOENT);
  ASSERT_EQ(symlink("absent", tree.path("link").c_str()), 0);
  EXPECT_EQ(read_small(tree, "link", 0, 1).sys_errno, ELOOP);
  EXPECT_EQ(read_small(tree, "../escape", 0, 1).sys_errno, EXDEV);
}

TEST(FileWork, ADirectoryOrFifoIsNotRegularAndHasNoData) {
  const TempTree tree;
  tree.make_directory("d");
  ASSERT_EQ(mkfifo(tree.path("p").c_str(), 0600), 0);
  for (const char* name : {"d", "p"}) {
    const FileReply reply = read_small(tree, name, 0, 10);
    EXPECT_EQ(reply.sys_errno, 0) << name;
    EXPECT_FALSE(reply.is_regular) << name;
    EXPECT_TRUE(reply.data.empty()) << name;
  }
}

TEST(FileWork, OpensAndRechecks) {
  const TempTree tree;
  tree.write("f", "abc");
  const FileReply opened = open_and_keep(tree, "f");
  ASSERT_NE(opened.file, nullptr);
  EXPECT_EQ(opened.validators.size_bytes, 3U);
  tree.write("f", "longer");
  FileRequest recheck;
  recheck.kind = FileRequest::Kind::kRecheck;
  recheck.file = opened.file;
  const FileReply again = run_file_request(recheck);
  EXPECT_TRUE(again.is_regular);
  EXPECT_EQ(again.validators.size_bytes, 6U);
}

TEST(FileWork, KeepsNoDirectoryOpen) {
  const TempTree tree;
  tree.make_directory("d");
  const FileReply reply = open_and_keep(tree, "d");
  EXPECT_EQ(reply.sys_errno, 0);
  EXPECT_FALSE(reply.is_regular);
  EXPECT_EQ(reply.file, nullptr);
}

// What is in the kernel's caches is there at once; anything else is nothing, never half.
TEST(FileWork, ATryGivesTheSameOrNothing) {
  const TempTree tree;
  tree.write("d/f", "0123456789");
  tree.make_directory("e");
  FileRequest request;
  request.id = 3;
  request.kind = FileRequest::Kind::kReadSmall;
  request.ranges = {{8, 1}, {0, 2}};
  for (const char* path : {"d/f", "e", "absent"}) {
    request.open = open_request(tree.fd(), path);
    const FileReply reply = run_file_request(request);
    const std::optional<FileReply> tried = try_file_request(request);
    if (!tried) continue;
    EXPECT_EQ(tried->id, 3U);
    EXPECT_EQ(tried->sys_errno, reply.sys_errno) << path;
    EXPECT_EQ(tried->is_regular, reply.is_regular);
    EXPECT_EQ(tried->validators, reply.validators);
    EXPECT_EQ(as_text(tried->data), as_text(reply.data));
  }
  FileRequest recheck;
  recheck.kind = FileRequest::Kind::kRecheck;
  recheck.file = open_and_keep(tree, "d/f").file;
  const std::optional<FileReply> checked = try_file_request(recheck);
  ASSERT_TRUE(checked);
  EXPECT_EQ(checked->validators.size_bytes, 10U);
}

}  // namespace
}  // namespace superlifter::io
