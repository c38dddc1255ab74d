// fs/beneath: what may be opened below a root, and what must not.
#include "core/fs/beneath.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "tests/support/temp_tree.h"

namespace superlifter::fs {
namespace {

RelPath path(std::string_view text) {
  const Result<RelPath> parsed = RelPath::parse(text);
  CHECK(parsed.has_value());
  return *parsed;
}

Errc code_of(const Result<UniqueFd>& result) {
  CHECK(!result);
  return result.error().code;
}

TEST(Beneath, OpensAFileBelowTheRoot) {
  const tests::TempTree tree;
  tree.write("a/b/file", "hello");
  const Result<UniqueFd> fd = open(read_request(tree.fd(), path("a/b/file")));
  ASSERT_TRUE(fd) << fd.error().message;
  char text[8] = {};
  EXPECT_EQ(::read(fd->get(), text, sizeof(text)), 5);
  EXPECT_STREQ(text, "hello");
  EXPECT_NE(::fcntl(fd->get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(Beneath, OpensTheRootAnewForTheEmptyPath) {
  const tests::TempTree tree;
  const Result<UniqueFd> fd = open_directory(tree.fd(), RelPath());
  ASSERT_TRUE(fd) << fd.error().message;
  struct stat a{};
  struct stat b{};
  ASSERT_EQ(::fstat(fd->get(), &a), 0);
  ASSERT_EQ(::fstat(tree.fd(), &b), 0);
  EXPECT_EQ(a.st_ino, b.st_ino);
}

TEST(Beneath, RefusesASymlinkAsTheLastName) {
  const tests::TempTree tree;
  tree.write("file", "x");
  ASSERT_EQ(::symlink("file", tree.path("link").c_str()), 0);
  const Result<UniqueFd> fd = open(read_request(tree.fd(), path("link")));
  EXPECT_EQ(code_of(fd), Errc::kNotFound);
  EXPECT_EQ(fd.error().sys_errno, ELOOP);
}

TEST(Beneath, RefusesASymlinkInTheMiddleEvenInsideTheRoot) {
  const tests::TempTree tree;
  tree.write("real/file", "x");
  ASSERT_EQ(::symlink("real", tree.path("link").c_str()), 0);
  EXPECT_EQ(code_of(open(read_request(tree.fd(), path("link/file")))), Errc::kNotFound);
  EXPECT_EQ(code_of(open_directory(tree.fd(), path("link"))), Errc::kNotFound);
}

TEST(Beneath, RefusesASymlinkOutOfTheRoot) {
  const tests::TempTree outside;
  outside.write("secret", "x");
  const tests::TempTree tree;
  ASSERT_EQ(::symlink(outside.path().c_str(), tree.path("out").c_str()), 0);
  EXPECT_EQ(code_of(open(read_request(tree.fd(), path("out/secret")))), Errc::kNotFound);
}

TEST(Beneath, RefusesDotDotEvenInAHandMadeRequest) {
  const tests::TempTree tree;
  tree.write("below/file", "x");
  OpenRequest request = read_request(tree.fd(), path("below"));
  request.path = "below/../../etc";
  const Result<UniqueFd> fd = open(request);
  ASSERT_FALSE(fd);
  EXPECT_EQ(fd.error().sys_errno, EXDEV);
  request.path = "/etc/passwd";
  EXPECT_FALSE(open(request));
}

TEST(Beneath, SaysNotFoundForWhatIsNotThereOrIsNoDirectory) {
  const tests::TempTree tree;
  tree.write("file", "x");
  EXPECT_EQ(code_of(open(read_request(tree.fd(), path("missing")))), Errc::kNotFound);
  EXPECT_EQ(code_of(open(read_request(tree.fd(), path("file/below")))), Errc::kNotFound);
  EXPECT_EQ(code_of(open_directory(tree.fd(), path("file"))), Errc::kNotFound);
}

TEST(Beneath, OpensADirectoryByOneNameOnly) {
  const tests::TempTree tree;
  tree.make_directory("a/b");
  EXPECT_TRUE(open_directory_at(tree.fd(), "a"));
  for (const std::string& name : std::vector<std::string>{"", ".", "..", "a/b", {"a\0b", 3}}) {
    EXPECT_EQ(code_of(open_directory_at(tree.fd(), name)), Errc::kProtocol) << name;
  }
}

TEST(Beneath, DoesNotBlockOnAFifo) {
  const tests::TempTree tree;
  ASSERT_EQ(::mkfifo(tree.path("fifo").c_str(), 0644), 0);
  EXPECT_TRUE(open(read_request(tree.fd(), path("fifo"))));
}

TEST(Beneath, FollowsSymlinksToTheRootItself) {
  const tests::TempTree tree;
  tree.make_directory("real");
  ASSERT_EQ(::symlink("real", tree.path("link").c_str()), 0);
  EXPECT_TRUE(open_root(tree.path("link")));
}

TEST(Beneath, NamesTheRootThatIsMissing) {
  const tests::TempTree tree;
  tree.write("file", "x");
  const Result<UniqueFd> missing = open_root(tree.path("no\nroot"));
  EXPECT_EQ(code_of(missing), Errc::kNotFound);
  EXPECT_NE(missing.error().message.find("no\\x0aroot"), std::string::npos);
  EXPECT_FALSE(open_root(tree.path("file")));
}

TEST(Beneath, TakesValidatorsFromAStat) {
  struct stat stat{};
  stat.st_ino = 1;
  stat.st_size = 2;
  stat.st_mtim = {.tv_sec = -3, .tv_nsec = 4};
  stat.st_ctim = {.tv_sec = 5, .tv_nsec = 999'999'999};
  const Validators expected{.inode = 1,
                            .size_bytes = 2,
                            .mtime_s = -3,
                            .ctime_s = 5,
                            .mtime_ns = 4,
                            .ctime_ns = 999'999'999};
  EXPECT_EQ(to_validators(stat), expected);
}

}  // namespace
}  // namespace superlifter::fs
