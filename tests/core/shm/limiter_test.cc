// Limiter: limits at the bound and one beyond it, exact return of a dead worker's rows, and threads
// that fight for the last place.
#include "core/shm/limiter.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace superlifter::shm {
namespace {

std::array<uint8_t, 16> v4(uint8_t last) {
  return {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 192, 0, 2, last};
}

std::array<uint8_t, 16> v6(uint8_t seventh, uint8_t last) {
  return {0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, seventh, 0, 0, 0, 0, 0, 0, 0, last};
}

class LimiterTest : public testing::Test {
 protected:
  void SetUp() override {
    Result<Segment> made = Segment::create(16);
    ASSERT_TRUE(made.has_value());
    segment_.emplace(std::move(*made));
  }
  Limiter limiter(Limits limits) const { return {*segment_, limits}; }

  std::optional<Segment> segment_;
};

TEST_F(LimiterTest, AdmitsUpToTheLimitAndNotOneMore) {
  const Limiter limiter = this->limiter({.connections = 2});
  Result<Admission> first = limiter.admit(v4(1), 0);
  const Result<Admission> second = limiter.admit(v4(2), 0);
  ASSERT_TRUE(first.has_value() && second.has_value());
  EXPECT_EQ(limiter.admit(v4(3), 0).error().code, Errc::kBusy);
  EXPECT_EQ(limiter.count(), 2U);
  first->release();
  EXPECT_TRUE(limiter.admit(v4(3), 0).has_value());
}

TEST_F(LimiterTest, AdmitsNoMoreThanThereAreRows) {
  const Limiter limiter = this->limiter({});
  std::vector<Admission> held;
  for (uint8_t i = 0; i < 16; ++i) {
    Result<Admission> admission = limiter.admit(v4(i), 0);
    ASSERT_TRUE(admission.has_value());
    held.push_back(std::move(*admission));
  }
  EXPECT_EQ(limiter.admit(v4(99), 0).error().code, Errc::kBusy);
}

TEST_F(LimiterTest, CountsAnIpv4AddressAlone) {
  const Limiter limiter = this->limiter({.connections = 16, .connections_per_address = 1});
  const Result<Admission> first = limiter.admit(v4(1), 0);
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(limiter.admit(v4(1), 0).error().code, Errc::kBusy);
  EXPECT_TRUE(limiter.admit(v4(2), 0).has_value());
}

TEST_F(LimiterTest, CountsAnIpv6Slash64AsOne) {
  const Limiter limiter = this->limiter({.connections = 16, .connections_per_address = 1});
  const Result<Admission> first = limiter.admit(v6(1, 1), 0);
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(limiter.admit(v6(1, 200), 0).error().code, Errc::kBusy);
  EXPECT_TRUE(limiter.admit(v6(2, 1), 0).has_value());
}

TEST_F(LimiterTest, FreesExactlyADeadWorkersRows) {
  const Limiter limiter = this->limiter({.connections = 16});
  Result<Admission> lost = limiter.admit(v4(1), 7);
  const Result<Admission> kept = limiter.admit(v4(2), 8);
  ASSERT_TRUE(lost.has_value() && kept.has_value());
  EXPECT_EQ(limiter.free_worker(7), 1U);
  EXPECT_EQ(limiter.count(), 1U);
  EXPECT_EQ(snapshot(kept->row()).worker, 8U);
  EXPECT_EQ(limiter.free_worker(7), 0U);
  // Here the object of the dead worker lives on and releases the row once more, which does no harm.
  const Result<Admission> reused = limiter.admit(v4(3), 9);
  ASSERT_TRUE(reused.has_value());
  EXPECT_EQ(&reused->row(), &lost->row());
}

TEST_F(LimiterTest, AModuleTakesItsLimitAndNotOneMore) {
  const Limiter limiter = this->limiter({.connections = 16});
  const Result<Admission> first = limiter.admit(v4(1), 0);
  const Result<Admission> second = limiter.admit(v4(2), 0);
  ASSERT_TRUE(first.has_value() && second.has_value());
  EXPECT_TRUE(limiter.enter_module(first->row(), "debian", 1).has_value());
  EXPECT_TRUE(limiter.enter_module(first->row(), "debian", 1).has_value());
  EXPECT_TRUE(limiter.enter_module(second->row(), "other", 1).has_value());
  EXPECT_EQ(limiter.enter_module(second->row(), "debian", 1).error().code, Errc::kBusy);
  EXPECT_EQ(snapshot(second->row()).module, "other");
  EXPECT_TRUE(limiter.enter_module(second->row(), "debian", 2).has_value());
  EXPECT_TRUE(limiter.enter_module(second->row(), "debian", 0).has_value());
}

TEST_F(LimiterTest, ThreadsNeverExceedALimitAndLeakNoRow) {
  const Limiter limiter = this->limiter({.connections = 12, .connections_per_address = 3});
  std::array<std::atomic<int>, 2> inside{};
  std::atomic<int> in_all = 0;
  std::atomic<int> exceeded = 0;
  std::atomic<int> admitted = 0;
  std::vector<std::jthread> threads;
  for (uint32_t worker = 0; worker < 8; ++worker) {
    threads.emplace_back([&, worker] {
      for (int i = 0; i < 2000; ++i) {
        const size_t who = (worker + static_cast<size_t>(i)) % inside.size();
        Result<Admission> admission = limiter.admit(v4(static_cast<uint8_t>(who)), worker);
        if (!admission) continue;
        ++admitted;
        const int here = ++inside[who];
        const int all = ++in_all;
        if (here > 3 || all > 12) ++exceeded;
        std::this_thread::yield();
        --inside[who];
        --in_all;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(exceeded, 0);
  EXPECT_GT(admitted, 0);
  EXPECT_EQ(limiter.count(), 0U);
}

TEST_F(LimiterTest, AdmitsAgainOnceEverybodyHasLeft) {
  const Limiter limiter = this->limiter({.connections = 16, .connections_per_address = 2});
  for (int i = 0; i < 100; ++i) {
    const Result<Admission> first = limiter.admit(v4(1), 0);
    const Result<Admission> second = limiter.admit(v4(1), 0);
    ASSERT_TRUE(first.has_value() && second.has_value());
  }
  EXPECT_EQ(limiter.count(), 0U);
}

}  // namespace
}  // namespace superlifter::shm
