// fs/mapped_file: a file of ours as bytes.
#include "core/fs/mapped_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <utility>

#include "tests/support/temp_tree.h"

namespace superlifter::fs {
namespace {

TEST(MappedFile, HoldsTheBytesAfterTheFdIsClosed) {
  const tests::TempTree tree;
  tree.write("file", "some bytes");
  UniqueFd fd(::open(tree.path("file").c_str(), O_RDONLY | O_CLOEXEC));
  Result<MappedFile> file = MappedFile::map(fd.get());
  ASSERT_TRUE(file) << file.error().message;
  fd.reset();
  EXPECT_EQ(as_text(file->bytes()), "some bytes");
  MappedFile moved = std::move(*file);
  EXPECT_EQ(as_text(moved.bytes()), "some bytes");
  MappedFile assigned;
  assigned = std::move(moved);
  EXPECT_EQ(as_text(assigned.bytes()), "some bytes");
}

TEST(MappedFile, MapsAnEmptyFileToNothing) {
  const tests::TempTree tree;
  tree.write("file", "");
  const UniqueFd fd(::open(tree.path("file").c_str(), O_RDONLY | O_CLOEXEC));
  const Result<MappedFile> file = MappedFile::map(fd.get());
  ASSERT_TRUE(file);
  EXPECT_TRUE(file->bytes().empty());
}

TEST(MappedFile, RefusesADirectoryAndABadFd) {
  const tests::TempTree tree;
  EXPECT_FALSE(MappedFile::map(tree.fd()));
  EXPECT_FALSE(MappedFile::map(-1));
}

}  // namespace
}  // namespace superlifter::fs
