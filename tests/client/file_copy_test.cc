// Ranges copied and moved, whatever copy_file_range says to it.
#include "client/file_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <random>
#include <string>

#include "tests/support/temp_tree.h"

namespace superlifter::client {
namespace {

using tests::TempTree;

std::string noise(size_t size_bytes, unsigned seed) {
  std::mt19937_64 random(seed);
  std::string out(size_bytes, '\0');
  for (char& byte : out) {
    byte = static_cast<char>(random());
  }
  return out;
}

// What the kernel is made to say; how often it was asked.
int refusal = 0;
unsigned asked = 0;

ssize_t refuse(int, loff_t*, int, loff_t*, size_t, unsigned) {
  ++asked;
  errno = refusal;
  return -1;
}
ssize_t say_nothing(int, loff_t*, int, loff_t*, size_t, unsigned) {
  ++asked;
  return 0;
}
// Copies at most 5000 bytes a call.
ssize_t copy_short(int from_fd, loff_t* from, int to_fd, loff_t* to, size_t length_bytes,
                   unsigned flags) {
  ++asked;
  return copy_file_range(from_fd, from, to_fd, to, std::min<size_t>(length_bytes, 5000), flags);
}

class FileCopyTest : public testing::Test {
 protected:
  FileCopyTest() {
    tree_.write("from", content_);
    tree_.write("to", "");
    from_ = UniqueFd(open(tree_.path("from").c_str(), O_RDONLY | O_CLOEXEC));
    to_ = UniqueFd(open(tree_.path("to").c_str(), O_RDWR | O_CLOEXEC));
    asked = 0;
  }

  void expect_copied(FileCopy& copier, const CopyRange& range) {
    ASSERT_EQ(ftruncate(to_.get(), 0), 0);
    const Status copied = copier.copy(from_.get(), to_.get(), range);
    ASSERT_TRUE(copied) << copied.error().message;
    const std::string got = tree_.read("to");
    ASSERT_EQ(got.size(), range.to + range.length_bytes);
    EXPECT_EQ(got.compare(range.to, range.length_bytes, content_, range.from, range.length_bytes),
              0);
  }

  const std::string content_ = noise(1'000'003, 1);
  TempTree tree_;
  UniqueFd from_;
  UniqueFd to_;
  std::atomic<bool> stop_ = false;
};

TEST_F(FileCopyTest, AnyAlignmentAndLength) {
  FileCopy copier(stop_);
  for (const uint64_t from : {0U, 1U, 4095U, 4096U, 4097U}) {
    for (const uint64_t to : {0U, 1U, 4096U, 8193U}) {
      for (const uint64_t length : {0U, 1U, 4096U, 65'535U, 65'536U, 70'001U, 900'000U}) {
        if (length == 0) continue;
        expect_copied(copier, {.from = from, .to = to, .length_bytes = length});
      }
    }
  }
}

TEST_F(FileCopyTest, ARefusalIsCopiedByHandAndNotAskedForAgain) {
  for (const int number : {EXDEV, EINVAL, EOPNOTSUPP, ENOSYS, EPERM, EBADF}) {
    refusal = number;
    asked = 0;
    FileCopy copier(stop_, refuse);
    expect_copied(copier, {.from = 1, .to = 1, .length_bytes = 900'000});
    expect_copied(copier, {.from = 0, .to = 4096, .length_bytes = 900'000});
    EXPECT_EQ(asked, 1U) << number;
  }
}

TEST_F(FileCopyTest, WhatOneFileIsRefusedIsTriedForTheNext) {
  for (const int number : {ENOSPC, EIO, EDQUOT}) {
    refusal = number;
    asked = 0;
    FileCopy copier(stop_, refuse);
    expect_copied(copier, {.from = 0, .to = 0, .length_bytes = 900'000});
    expect_copied(copier, {.from = 0, .to = 0, .length_bytes = 900'000});
    EXPECT_EQ(asked, 2U) << number;
  }
}

TEST_F(FileCopyTest, ShortAndEmptyAnswersAreMadeUpFor) {
  FileCopy in_bits(stop_, copy_short);
  expect_copied(in_bits, {.from = 4096, .to = 0, .length_bytes = 900'000});
  EXPECT_GT(asked, 100U);
  FileCopy silent(stop_, say_nothing);
  expect_copied(silent, {.from = 4096, .to = 0, .length_bytes = 900'000});
  FileCopy without(stop_, nullptr);
  expect_copied(without, {.from = 4096, .to = 0, .length_bytes = 900'000});
}

TEST_F(FileCopyTest, ShortRunsAndUnlikeOffsetsAreNotLeftToTheKernel) {
  refusal = ENOSYS;
  FileCopy copier(stop_, refuse);
  expect_copied(copier, {.from = 0, .to = 0, .length_bytes = 65'535});
  expect_copied(copier, {.from = 0, .to = 1, .length_bytes = 900'000});
  EXPECT_EQ(asked, 0U);
}

TEST_F(FileCopyTest, ASourceThatEndsIsStale) {
  for (const auto call : {FileCopy::system_call(), FileCopy::CopyFileRange(nullptr)}) {
    FileCopy copier(stop_, call);
    const Status copied =
        copier.copy(from_.get(), to_.get(), {.from = 4096, .to = 0, .length_bytes = 995'908});
    ASSERT_FALSE(copied);
    EXPECT_EQ(copied.error().code, Errc::kStale);
    EXPECT_EQ(copied.error().sys_errno, 0);
  }
}

TEST_F(FileCopyTest, WhatCannotBeReadIsStaleAndWhatCannotBeWrittenIsIo) {
  FileCopy copier(stop_);
  const UniqueFd directory(open(tree_.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (const uint64_t length : {100U, 900'000U}) {
    Status copied =
        copier.copy(directory.get(), to_.get(), {.from = 0, .to = 0, .length_bytes = length});
    ASSERT_FALSE(copied);
    EXPECT_EQ(copied.error().code, Errc::kStale);
    copied = copier.copy(from_.get(), from_.get(), {.from = 0, .to = 0, .length_bytes = length});
    ASSERT_FALSE(copied);
    EXPECT_EQ(copied.error().code, Errc::kIo);
    EXPECT_EQ(copied.error().sys_errno, EBADF);
  }
}

TEST_F(FileCopyTest, StopEndsIt) {
  stop_ = true;
  FileCopy copier(stop_);
  const CopyRange range{.from = 0, .to = 0, .length_bytes = 900'000};
  EXPECT_EQ(copier.copy(from_.get(), to_.get(), range).error().code, Errc::kClosed);
  EXPECT_EQ(copier.move(to_.get(), {.from = 0, .to = 1, .length_bytes = 10}).error().code,
            Errc::kClosed);
  hash::Xxh128Hasher hasher;
  EXPECT_EQ(copier.hash(from_.get(), 0, 10, hasher).error().code, Errc::kClosed);
}

TEST_F(FileCopyTest, OverlappingRangesAreMovedAsMemmoveDoes) {
  FileCopy copier(stop_);
  for (const uint64_t from : {0U, 1U, 300'000U}) {
    for (const uint64_t to : {0U, 1U, 2U, 299'000U, 500'000U}) {
      tree_.write("to", content_);
      const CopyRange range{.from = from, .to = to, .length_bytes = 600'000};
      ASSERT_TRUE(copier.move(to_.get(), range));
      std::string expected = content_;
      expected.resize(std::max<size_t>(expected.size(), to + 600'000));
      std::copy(content_.begin() + static_cast<ptrdiff_t>(from),
                content_.begin() + static_cast<ptrdiff_t>(from + 600'000),
                expected.begin() + static_cast<ptrdiff_t>(to));
      EXPECT_EQ(tree_.read("to"), expected) << from << " to " << to;
    }
  }
}

TEST_F(FileCopyTest, ACloneHasTheContentOrNothing) {
  FileCopy copier(stop_);
  const bool cloned = copier.clone(from_.get(), to_.get());
  EXPECT_EQ(tree_.read("to"), cloned ? content_ : "");
}

TEST_F(FileCopyTest, HashesARange) {
  FileCopy copier(stop_);
  hash::Xxh128Hasher hasher;
  ASSERT_TRUE(copier.hash(from_.get(), 5, 500'000, hasher));
  ASSERT_TRUE(copier.hash(from_.get(), 500'005, 499'998, hasher));
  EXPECT_EQ(hasher.digest(), hash::xxh128(as_bytes(content_).subspan(5)));
  EXPECT_EQ(copier.hash(from_.get(), 5, 1'000'000, hasher).error().code, Errc::kStale);
}

}  // namespace
}  // namespace superlifter::client
