#include "core/base/unique_fd.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <utility>

namespace superlifter {
namespace {

int open_null() {
  return open("/dev/null", O_RDONLY | O_CLOEXEC);
}
bool is_open(int fd) {
  return fcntl(fd, F_GETFD) >= 0;
}

TEST(UniqueFd, OwnsNothingAtFirst) {
  const UniqueFd fd;
  EXPECT_FALSE(fd.valid());
  EXPECT_FALSE(static_cast<bool>(fd));
  EXPECT_EQ(fd.get(), -1);
}

TEST(UniqueFd, ClosesAtTheEndOfItsLife) {
  const int number = open_null();
  ASSERT_GE(number, 0);
  {
    const UniqueFd fd(number);
    EXPECT_TRUE(fd.valid());
    EXPECT_TRUE(is_open(number));
  }
  EXPECT_FALSE(is_open(number));
}

TEST(UniqueFd, MovingHandsOverAndClosesWhatWasThere) {
  UniqueFd first(open_null());
  UniqueFd second(open_null());
  const int kept = first.get();
  const int closed = second.get();
  second = std::move(first);
  EXPECT_EQ(second.get(), kept);
  EXPECT_TRUE(is_open(kept));
  EXPECT_FALSE(is_open(closed));
  const UniqueFd third(std::move(second));
  EXPECT_EQ(third.get(), kept);
}

TEST(UniqueFd, SurvivesMovingToItself) {
  UniqueFd fd(open_null());
  UniqueFd& same = fd;
  fd = std::move(same);
  EXPECT_TRUE(is_open(fd.get()));
}

TEST(UniqueFd, ReleaseGivesTheDescriptorAway) {
  UniqueFd fd(open_null());
  const int number = fd.release();
  EXPECT_FALSE(fd.valid());
  EXPECT_TRUE(is_open(number));
  const UniqueFd again(number);
}

TEST(UniqueFd, ResetClosesOnce) {
  UniqueFd fd(open_null());
  const int number = fd.get();
  fd.reset();
  EXPECT_FALSE(is_open(number));
  fd.reset();
  EXPECT_FALSE(fd.valid());
}

TEST(UniqueFd, CheckedCloseReports) {
  UniqueFd fd(open_null());
  EXPECT_TRUE(fd.close_checked("close it").has_value());
  EXPECT_FALSE(fd.valid());
  EXPECT_TRUE(fd.close_checked("close nothing").has_value());

  UniqueFd broken(1'000'000);  // Above any limit on descriptors that a test runs under.
  const Status status = broken.close_checked("close x");
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, Errc::kIo);
  EXPECT_EQ(status.error().sys_errno, EBADF);
  EXPECT_EQ(status.error().message, "close x: Bad file descriptor");
  EXPECT_FALSE(broken.valid());
}

}  // namespace
}  // namespace superlifter
