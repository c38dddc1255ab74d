#include "core/delta/plan.h"

#include <gtest/gtest.h>

namespace superlifter::delta {
namespace {

TEST(Plan, OfAnEmptyTargetHasNothing) {
  const Plan plan;
  EXPECT_EQ(plan.copied_bytes(), 0U);
  EXPECT_TRUE(plan.literals().empty());
}

TEST(Plan, WithoutCopiesIsOneLiteral) {
  const Plan plan{.target_bytes = 10};
  EXPECT_EQ(plan.literals(), (std::vector<Range>{{0, 10}}));
}

TEST(Plan, OfOneCopyHasNoLiteral) {
  const Plan plan{.target_bytes = 10, .copies = {{0, 5, 10}}};
  EXPECT_EQ(plan.copied_bytes(), 10U);
  EXPECT_TRUE(plan.literals().empty());
}

TEST(Plan, HasLiteralsBeforeBetweenAndBehindCopies) {
  const Plan plan{.target_bytes = 100, .copies = {{1, 50, 9}, {10, 0, 10}, {30, 90, 69}}};
  EXPECT_EQ(plan.copied_bytes(), 88U);
  EXPECT_EQ(plan.literals(), (std::vector<Range>{{0, 1}, {20, 10}, {99, 1}}));
}

TEST(Plan, CountsInSixtyFourBits) {
  constexpr uint64_t kHuge = uint64_t{1} << 40;
  const Plan plan{.target_bytes = 3 * kHuge, .copies = {{kHuge, 0, kHuge}}};
  EXPECT_EQ(plan.copied_bytes(), kHuge);
  EXPECT_EQ(plan.literals(), (std::vector<Range>{{0, kHuge}, {2 * kHuge, kHuge}}));
}

TEST(PlanDeathTest, WhoseCopiesOverlapIsRefused) {
  const Plan plan{.target_bytes = 10, .copies = {{0, 0, 5}, {4, 0, 5}}};
  EXPECT_DEATH(static_cast<void>(plan.literals()), "CHECK failed");
}

}  // namespace
}  // namespace superlifter::delta
