// Segment: made by one, mapped by another, and refused when it is not what it should be.
#include "core/shm/segment.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>

namespace superlifter::shm {
namespace {

UniqueFd duplicate(int fd) {
  return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

TEST(Segment, IsTheSameMemoryForWhoAttaches) {
  const Result<Segment> made = Segment::create(3);
  ASSERT_TRUE(made.has_value()) << made.error().message;
  const Result<Segment> seen = Segment::attach(duplicate(made->fd()));
  ASSERT_TRUE(seen.has_value()) << seen.error().message;
  ASSERT_EQ(seen->rows().size(), 3U);
  made->rows()[2].bytes_sent.store(42);
  EXPECT_EQ(seen->rows()[2].bytes_sent.load(), 42U);
}

TEST(Segment, CannotBeResized) {
  const Result<Segment> made = Segment::create(1);
  ASSERT_TRUE(made.has_value());
  EXPECT_NE(ftruncate(made->fd(), 0), 0);
  EXPECT_NE(ftruncate(made->fd(), 1 << 20), 0);
}

TEST(Segment, RefusesAnotherLayout) {
  const Result<Segment> made = Segment::create(1);
  ASSERT_TRUE(made.has_value());
  made->header().layout_version = kLayoutVersion + 1;
  const Result<Segment> seen = Segment::attach(duplicate(made->fd()));
  ASSERT_FALSE(seen.has_value());
  EXPECT_EQ(seen.error().code, Errc::kUnsupported);
  EXPECT_NE(seen.error().message.find(std::to_string(kLayoutVersion + 1)), std::string::npos);
}

TEST(Segment, RefusesWhatIsNoSegment) {
  UniqueFd empty(memfd_create("empty", MFD_CLOEXEC));
  EXPECT_EQ(Segment::attach(std::move(empty)).error().code, Errc::kCorrupt);
  UniqueFd zeros(memfd_create("zeros", MFD_CLOEXEC));
  ASSERT_EQ(ftruncate(zeros.get(), 4096), 0);
  EXPECT_EQ(Segment::attach(std::move(zeros)).error().code, Errc::kCorrupt);
}

TEST(Segment, RefusesARowCountThatDoesNotFitItsSize) {
  const Result<Segment> made = Segment::create(2);
  ASSERT_TRUE(made.has_value());
  made->header().row_count = 3;
  EXPECT_EQ(Segment::attach(duplicate(made->fd())).error().code, Errc::kCorrupt);
}

TEST(Segment, SnapshotGivesBackWhatARowHolds) {
  const Result<Segment> made = Segment::create(1);
  ASSERT_TRUE(made.has_value());
  ConnectionRow& row = made->rows()[0];
  row.address_high.store(0x2001'0db8'0000'0001);
  row.address_low.store(0xFF);
  set_module(row, std::string(40, 'm'));
  const RowSnapshot plain = snapshot(row);
  EXPECT_EQ(plain.address[0], 0x20);
  EXPECT_EQ(plain.address[7], 0x01);
  EXPECT_EQ(plain.address[15], 0xFF);
  EXPECT_EQ(plain.module, std::string(32, 'm'));
  EXPECT_EQ(row.module_hash.load(), module_hash(std::string(40, 'm')));
}

}  // namespace
}  // namespace superlifter::shm
