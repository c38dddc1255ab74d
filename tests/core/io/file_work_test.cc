// File work: what each kind of request answers, for files that are as expected and for those that
// are not.
#include "core/io/file_work.h"

#include <errno.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/limits.h"
#include "tests/core/io/io_support.h"
#include "tests/support/temp_tree.h"

namespace superlifter::io {
namespace {

using tests::open_request;
using tests::TempTree;

FileReply read_small(const TempTree& tree, const std::string& path, uint64_t offset,
                     uint32_t length) {
  FileRequest request;
  request.id = 7;
  request.kind = FileRequest::Kind::kReadSmall;
  request.open = open_request(tree.fd(), path);
  request.offset = offset;
  request.length_bytes = length;
  return run_file_request(std::move(request));
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

TEST(FileWork, ReadsNoMoreThanASmallFileMayHave) {
  const TempTree tree;
  tree.write("f", std::string(kSmallFileBytes + 1, 'x'));
  EXPECT_EQ(read_small(tree, "f", 0, kSmallFileBytes + 1).data.size(), kSmallFileBytes);
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
  FileRequest open;
  open.kind = FileRequest::Kind::kOpen;
  open.open = open_request(tree.fd(), "f");
  const FileReply opened = run_file_request(std::move(open));
  ASSERT_NE(opened.file, nullptr);
  EXPECT_EQ(opened.validators.size_bytes, 3U);
  tree.write("f", "longer");
  FileRequest recheck;
  recheck.kind = FileRequest::Kind::kRecheck;
  recheck.file = opened.file;
  const FileReply again = run_file_request(std::move(recheck));
  EXPECT_TRUE(again.is_regular);
  EXPECT_EQ(again.validators.size_bytes, 6U);
}

TEST(FileWork, KeepsNoDirectoryOpen) {
  const TempTree tree;
  tree.make_directory("d");
  FileRequest open;
  open.kind = FileRequest::Kind::kOpen;
  open.open = open_request(tree.fd(), "d");
  const FileReply reply = run_file_request(std::move(open));
  EXPECT_EQ(reply.sys_errno, 0);
  EXPECT_FALSE(reply.is_regular);
  EXPECT_EQ(reply.file, nullptr);
}

}  // namespace
}  // namespace superlifter::io
