// Copies ordered for rebuilding a file inside its basis: carried out in memory, they must give what
// copying aside gives.
#include "core/delta/in_place.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>
#include <string>

#include "core/base/bytes.h"

namespace superlifter::delta {
namespace {

// The oracle: the target, copied from the basis into a buffer of its own; literals are 'L'.
std::string rebuilt_aside(const Plan& plan, const std::string& basis) {
  std::string out(plan.target_bytes, 'L');
  for (const Copy& copy : plan.copies) {
    out.replace(copy.target_offset, copy.length_bytes, basis, copy.basis_offset, copy.length_bytes);
  }
  return out;
}

// The same inside one buffer; saved bytes and literals last.
std::string rebuilt_in_place(const InPlacePlan& in_place, std::string file) {
  std::string saved;
  for (const Copy& copy : in_place.saved) {
    saved += file.substr(copy.basis_offset, copy.length_bytes);
  }
  file.resize(std::max<size_t>(file.size(), in_place.plan.target_bytes), '?');
  for (const Copy& copy : in_place.order) {
    std::memmove(file.data() + copy.target_offset, file.data() + copy.basis_offset,
                 copy.length_bytes);
  }
  size_t at = 0;
  for (const Copy& copy : in_place.saved) {
    file.replace(copy.target_offset, copy.length_bytes, saved, at, copy.length_bytes);
    at += copy.length_bytes;
  }
  for (const Range& literal : in_place.plan.literals()) {
    file.replace(literal.offset, literal.length_bytes, literal.length_bytes, 'L');
  }
  file.resize(in_place.plan.target_bytes);
  return file;
}

uint64_t saved_bytes(const Plan& plan) {
  uint64_t sum = 0;
  for (const Copy& copy : order_in_place(plan).saved) {
    sum += copy.length_bytes;
  }
  return sum;
}

void expect_right(const Plan& plan, const std::string& basis) {
  const InPlacePlan in_place = order_in_place(plan);
  EXPECT_EQ(in_place.plan.target_bytes, plan.target_bytes);
  EXPECT_EQ(in_place.plan.copies, plan.copies);
  EXPECT_EQ(rebuilt_in_place(in_place, basis), rebuilt_aside(plan, basis));
}

std::string some_bytes(std::mt19937& random, size_t size_bytes) {
  std::string out(size_bytes, '\0');
  for (char& byte : out) {
    byte = static_cast<char>('a' + random() % 26);
  }
  return out;
}

Plan random_plan(std::mt19937& random, uint64_t basis_bytes, uint64_t most_copy_bytes) {
  Plan plan;
  const size_t copies = random() % 40;
  for (size_t i = 0; i < copies; ++i) {
    if (random() % 3 == 0) plan.target_bytes += random() % 10;
    const uint64_t length = 1 + random() % std::min(most_copy_bytes, basis_bytes);
    uint64_t from = random() % (basis_bytes - length + 1);
    if (random() % 4 == 0 && plan.target_bytes + length <= basis_bytes) from = plan.target_bytes;
    plan.copies.push_back({plan.target_bytes, from, length});
    plan.target_bytes += length;
  }
  plan.target_bytes += random() % 10;
  return plan;
}

TEST(InPlace, AnyPlanGivesTheTarget) {
  for (unsigned seed = 0; seed < 20'000; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const std::string basis = some_bytes(random, 1 + random() % 200);
    expect_right(random_plan(random, basis.size(), 1 + random() % 60), basis);
    if (testing::Test::HasFailure()) return;
  }
}

TEST(InPlace, NothingToCopyIsNothingToDo) {
  const InPlacePlan in_place = order_in_place({.target_bytes = 10, .copies = {}});
  EXPECT_TRUE(in_place.order.empty() && in_place.saved.empty());
}

TEST(InPlace, BytesThatStayAreNotMoved) {
  const Plan plan{.target_bytes = 30, .copies = {{0, 0, 10}, {20, 20, 10}}};
  const InPlacePlan in_place = order_in_place(plan);
  EXPECT_TRUE(in_place.order.empty() && in_place.saved.empty());
}

TEST(InPlace, AnInsertionOrARemovalSavesNothing) {
  // A byte more at every block: all copies go up, by more and more. Removed: down.
  Plan grown;
  Plan shrunk;
  for (uint64_t i = 0; i < 1000; ++i) {
    grown.copies.push_back({i * 101 + 1, i * 100, 100});
    shrunk.copies.push_back({i * 100, i * 101 + 1, 100});
  }
  grown.target_bytes = shrunk.target_bytes = 101 * 1000;
  for (const Plan& plan : {grown, shrunk}) {
    const InPlacePlan in_place = order_in_place(plan);
    EXPECT_EQ(in_place.order.size(), 1000U);
    EXPECT_TRUE(in_place.saved.empty());
  }
}

TEST(InPlace, ACopyThatOverlapsItselfStaysWhole) {
  for (const uint64_t shift : {1U, 50U, 99U}) {
    EXPECT_EQ(order_in_place({.target_bytes = 100 + shift, .copies = {{shift, 0, 100}}}).order,
              (std::vector<Copy>{{shift, 0, 100}}));
    EXPECT_EQ(order_in_place({.target_bytes = 100, .copies = {{0, shift, 100}}}).order,
              (std::vector<Copy>{{0, shift, 100}}));
  }
}

TEST(InPlace, ACycleCostsNoMoreThanWhatOverlaps) {
  // Two halves change places, one of them longer.
  const Plan swapped{.target_bytes = 300, .copies = {{0, 200, 100}, {100, 0, 200}}};
  EXPECT_EQ(saved_bytes(swapped), 100U);
  // Two large copies: each writes over what the other reads, one of them over ten bytes only.
  const Plan touching{.target_bytes = 2990, .copies = {{0, 1000, 1000}, {1990, 0, 1000}}};
  EXPECT_EQ(saved_bytes(touching), 10U);
  const Plan mirrored{.target_bytes = 3000, .copies = {{0, 1990, 1000}, {2000, 0, 1000}}};
  EXPECT_EQ(saved_bytes(mirrored), 990U);
  // The cheapest edge lies in the middle of the cycle.
  const Plan three{.target_bytes = 3000,
                   .copies = {{0, 1000, 1000}, {1000, 2999, 1000}, {2000, 0, 1000}}};
  EXPECT_EQ(saved_bytes(three), 1U);
}

TEST(InPlace, ManyCopiesInOneCycleCostOneOfThem) {
  // Every block moves one place on, the last one to the front.
  Plan plan{.target_bytes = 1000 * 64, .copies = {{0, 999 * 64, 64}}};
  for (uint64_t i = 1; i < 1000; ++i) {
    plan.copies.push_back({i * 64, (i - 1) * 64, 64});
  }
  EXPECT_EQ(saved_bytes(plan), 64U);
  std::mt19937 random(1);
  expect_right(plan, some_bytes(random, 1000 * 64));
}

// Everything conflicts with everything: the time must still be that of n log n.
TEST(InPlace, HostilePlansTakeLinearTime) {
  constexpr uint64_t kCopies = 100'000;
  Plan wide;  // Large sources over small targets, and small ones behind.
  for (uint64_t i = 0; i < kCopies / 2; ++i) {
    wide.copies.push_back({i * 2, kCopies + i, 2});
  }
  for (uint64_t i = 0; i < kCopies / 2; ++i) {
    wide.copies.push_back({kCopies + i * kCopies, 1, kCopies});
  }
  wide.target_bytes = wide.copies.back().target_end();
  Plan shuffled;  // Blocks in any order.
  std::vector<uint64_t> from(kCopies);
  for (uint64_t i = 0; i < kCopies; ++i) {
    from[i] = i;
  }
  std::shuffle(from.begin(), from.end(), std::mt19937(7));
  for (uint64_t i = 0; i < kCopies; ++i) {
    shuffled.copies.push_back({i * 8, from[i] * 8, 8});
  }
  shuffled.target_bytes = kCopies * 8;
  Plan same;  // One block for all.
  for (uint64_t i = 0; i < kCopies; ++i) {
    same.copies.push_back({i * 8, kCopies * 4, 8});
  }
  same.target_bytes = kCopies * 8;
  Plan chain;  // Each reads where the next one writes, and the last one where all do.
  for (uint64_t i = 0; i + 1 < kCopies; ++i) {
    chain.copies.push_back({i * 8, (i + 1) * 8 + 4, 4});
  }
  chain.copies.push_back({kCopies * 8, 0, kCopies * 8});
  chain.copies[kCopies - 2].basis_offset = kCopies * 8 + 4;
  chain.target_bytes = kCopies * 16;
  const auto begin = std::chrono::steady_clock::now();
  for (const Plan& plan : {wide, shuffled, same, chain}) {
    const InPlacePlan in_place = order_in_place(plan);
    EXPECT_LE(in_place.order.size() + in_place.saved.size(), 10 * plan.copies.size());
  }
  // Quadratic would be 10^10 steps; the bound leaves room for a slow machine and a sanitizer.
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  std::mt19937 random(3);
  expect_right(shuffled, some_bytes(random, kCopies * 8));
  expect_right(same, some_bytes(random, kCopies * 8));
  expect_right(chain, some_bytes(random, kCopies * 16));
}

}  // namespace
}  // namespace superlifter::delta
