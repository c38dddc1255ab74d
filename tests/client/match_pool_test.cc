// The threads that match: order, every piece once, no deadlock, what an end drops and waits for.
#include "client/match_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <latch>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace superlifter::client {
namespace {

// How often each of some pieces ran.
class Tally {
 public:
  explicit Tally(size_t count) : counts_(count) {}

  void add(size_t piece) { counts_[piece].fetch_add(1, std::memory_order_relaxed); }
  bool all_once() const {
    for (const std::atomic<int>& count : counts_)
      if (count.load(std::memory_order_relaxed) != 1) return false;
    return true;
  }

 private:
  std::vector<std::atomic<int>> counts_;
};

class MatchPoolOf : public testing::TestWithParam<unsigned> {};
INSTANTIATE_TEST_SUITE_P(Threads, MatchPoolOf, testing::Values(1U, 2U, 4U));

TEST_P(MatchPoolOf, EveryTaskRunsOnce) {
  constexpr size_t kTasks = 1000;
  Tally tally(kTasks);
  std::latch ended(kTasks);
  MatchPool pool(GetParam());
  for (size_t i = 0; i < kTasks; ++i)
    pool.run([&, i] {
      tally.add(i);
      ended.count_down();
    });
  ended.wait();
  EXPECT_TRUE(tally.all_once());
}

TEST_P(MatchPoolOf, EveryPieceRunsOnceBeforeParallelComesBack) {
  for (const size_t count : {0U, 1U, 2U, 3U, 4U, 5U, 1000U}) {
    Tally tally(count);
    bool is_whole = false;  // Published by the latch.
    std::latch ended(1);
    MatchPool pool(GetParam());
    pool.run([&] {
      pool.parallel(count, [&](size_t piece) { tally.add(piece); });
      is_whole = tally.all_once();
      ended.count_down();
    });
    ended.wait();
    EXPECT_TRUE(is_whole) << count;
  }
}

TEST_P(MatchPoolOf, TasksShareTheirPiecesSideBySide) {
  constexpr size_t kTasks = 16;
  constexpr size_t kPieces = 200;
  std::vector<std::unique_ptr<Tally>> tallies;
  for (size_t i = 0; i < kTasks; ++i)
    tallies.push_back(std::make_unique<Tally>(kPieces));
  std::atomic<size_t> whole = 0;
  std::latch ended(kTasks);
  MatchPool pool(GetParam());
  for (size_t i = 0; i < kTasks; ++i)
    pool.run([&, i] {
      // What the pieces are called with lives on this stack: nobody may come too late for it.
      Tally& tally = *tallies[i];
      pool.parallel(kPieces, [&tally](size_t piece) { tally.add(piece); });
      if (tally.all_once()) ++whole;
      ended.count_down();
    });
  ended.wait();
  EXPECT_EQ(whole, kTasks);
}

TEST_P(MatchPoolOf, PiecesMayShareTheirWorkToo) {
  constexpr size_t kTasks = 8;
  constexpr size_t kOuter = 6;
  constexpr size_t kInner = 7;
  Tally tally(kTasks * kOuter * kInner);
  std::latch ended(kTasks);
  MatchPool pool(GetParam());
  for (size_t task = 0; task < kTasks; ++task)
    pool.run([&, task] {
      pool.parallel(kOuter, [&](size_t outer) {
        pool.parallel(kInner,
                      [&](size_t inner) { tally.add((task * kOuter + outer) * kInner + inner); });
      });
      ended.count_down();
    });
  ended.wait();
  EXPECT_TRUE(tally.all_once());
}

TEST_P(MatchPoolOf, WhatPiecesDidIsSeenByTheirTask) {
  std::vector<size_t> results(5000);  // No atomics: ThreadSanitizer looks on.
  size_t sum = 0;
  std::latch ended(1);
  MatchPool pool(GetParam());
  pool.run([&] {
    pool.parallel(results.size(), [&](size_t piece) { results[piece] = piece; });
    for (const size_t result : results)
      sum += result;
    ended.count_down();
  });
  ended.wait();
  EXPECT_EQ(sum, results.size() * (results.size() - 1) / 2);
}

TEST(MatchPool, OneThreadTakesTasksInOrder) {
  std::vector<int> order;  // Of one thread; published by the latch.
  std::latch ended(100);
  MatchPool pool(1);
  for (int i = 0; i < 100; ++i)
    pool.run([&, i] {
      order.push_back(i);
      ended.count_down();
    });
  ended.wait();
  for (int i = 0; i < 100; ++i)
    EXPECT_EQ(order[static_cast<size_t>(i)], i);
}

TEST(MatchPool, PiecesRunSideBySide) {
  // Each waits for the other: one thread could not end this.
  std::latch both(2);
  std::latch ended(1);
  MatchPool pool(2);
  pool.run([&] {
    pool.parallel(2, [&](size_t) { both.arrive_and_wait(); });
    ended.count_down();
  });
  ended.wait();
}

TEST(MatchPool, ParallelNeedsNoThreadThatIsFree) {
  // The only other thread is held until the pieces have ended.
  std::latch is_held(1);
  std::latch release(1);
  std::latch ended(1);
  Tally tally(10);
  MatchPool pool(2);
  pool.run([&] {
    is_held.count_down();
    release.wait();
  });
  pool.run([&] {
    is_held.wait();
    pool.parallel(10, [&](size_t piece) { tally.add(piece); });
    release.count_down();
    ended.count_down();
  });
  ended.wait();
  EXPECT_TRUE(tally.all_once());
}

TEST(MatchPool, TheEndWaitsForWhatHasBegunAndDropsTheRest) {
  std::latch has_begun(1);
  std::latch release(1);
  bool has_ended = false;  // Published by the join.
  std::atomic<int> begun = 0;
  const auto token = std::make_shared<int>(0);  // Held by whatever task is still there.
  std::thread ender;
  {
    auto pool = std::make_unique<MatchPool>(1);
    pool->run([&] {
      has_begun.count_down();
      release.wait();
      has_ended = true;
    });
    for (int i = 0; i < 50; ++i)
      pool->run([&begun, token] { ++begun; });
    has_begun.wait();
    ender = std::thread([pool = std::move(pool)]() mutable { pool.reset(); });
  }
  // The tasks that wait are gone before the one that runs has ended: else this would not.
  while (token.use_count() > 1)
    std::this_thread::yield();
  EXPECT_FALSE(has_ended);
  release.count_down();
  ender.join();
  EXPECT_TRUE(has_ended);
  EXPECT_EQ(begun, 0);
}

TEST(MatchPool, TheEndWaitsForPiecesThatAreShared) {
  constexpr size_t kPieces = 300;
  for (int round = 0; round < 50; ++round) {
    Tally tally(kPieces);
    std::latch has_begun(1);
    std::atomic<bool> is_first = true;
    {
      MatchPool pool(3);
      pool.run([&] {
        pool.parallel(kPieces, [&](size_t piece) {
          if (is_first.exchange(false)) has_begun.count_down();
          tally.add(piece);
        });
      });
      has_begun.wait();
    }
    EXPECT_TRUE(tally.all_once());
  }
}

TEST(MatchPool, AnIdlePoolEnds) {
  for (int round = 0; round < 100; ++round)
    const MatchPool pool(4);
}

}  // namespace
}  // namespace superlifter::client
