#include "core/delta/refiner.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/core/delta/memory_files.h"

namespace superlifter::delta {
namespace {

Bytes periodic(size_t size, size_t period) {
  const Bytes unit = noise(period, period);
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i)
    bytes[i] = unit[i % period];
  return bytes;
}

// --- Cross product ------------------------------------------------------------------------------

enum class TargetKind { kNoise, kProse, kZeros, kPeriodic };
constexpr TargetKind kTargetKinds[] = {TargetKind::kNoise, TargetKind::kProse, TargetKind::kZeros,
                                       TargetKind::kPeriodic};

Bytes make_target(TargetKind kind, size_t size) {
  switch (kind) {
    case TargetKind::kNoise:
      return noise(size, size);
    case TargetKind::kProse:
      return prose(size, size);
    case TargetKind::kZeros:
      return Bytes(size, 0);
    case TargetKind::kPeriodic:
      return periodic(size, 1013);
  }
  return {};
}

// Many small changes, some in place and some that move all behind them.
Bytes edited(const Bytes& target) {
  std::mt19937_64 random(5);
  Bytes basis;
  for (size_t at = 0; at < target.size();) {
    const size_t kept = std::min<size_t>(1 + random() % 20'000, target.size() - at);
    basis = std::move(basis) + slice(target, at, kept);
    at += kept;
    const uint64_t change = random() % 3;
    if (change != 0) at += std::min<size_t>(random() % 100, target.size() - at);
    if (change != 1) basis = std::move(basis) + noise(random(), random() % 100);
  }
  return basis;
}

Bytes reversed_blocks(const Bytes& target, size_t length) {
  Bytes basis;
  for (size_t end = target.size(); end > 0;) {
    const size_t part = (end - 1) % length + 1;
    basis = std::move(basis) + slice(target, end - part, part);
    end -= part;
  }
  return basis;
}

struct BasisKind {
  const char* name;
  Bytes (*make)(const Bytes& target);
};

constexpr BasisKind kBasisKinds[] = {
    {"Empty", [](const Bytes&) { return Bytes{}; }},
    {"OneByte", [](const Bytes&) { return Bytes{0}; }},
    {"Equal", [](const Bytes& target) { return target; }},
    {"ByteMoreAtFront", [](const Bytes& target) { return Bytes{9} + target; }},
    {"ByteLessAtFront",
     [](const Bytes& target) {
       return target.empty() ? target : slice(target, 1, target.size() - 1);
     }},
    {"ByteMoreInside",
     [](const Bytes& target) {
       const size_t half = target.size() / 2;
       return slice(target, 0, half) + Bytes{9} + slice(target, half, target.size() - half);
     }},
    {"Prefix", [](const Bytes& target) { return slice(target, 0, target.size() * 2 / 3); }},
    {"Suffix",
     [](const Bytes& target) {
       return slice(target, target.size() / 3, target.size() - target.size() / 3);
     }},
    {"Longer", [](const Bytes& target) { return target + noise(3, target.size() / 2 + 1); }},
    {"ReversedBlocks", [](const Bytes& target) { return reversed_blocks(target, 4096); }},
    {"ReversedOddBlocks", [](const Bytes& target) { return reversed_blocks(target, 3001); }},
    {"Zeros", [](const Bytes& target) { return Bytes(target.size(), 0); }},
    {"Periodic", [](const Bytes& target) { return periodic(target.size(), 777); }},
    {"Noise", [](const Bytes& target) { return noise(99, target.size()); }},
    {"Twice", [](const Bytes& target) { return target + target; }},
    {"Edited", [](const Bytes& target) { return edited(target); }},
};

class RefinerRebuilds : public testing::TestWithParam<BasisKind> {
 protected:
  static void check(const Bytes& basis, const Bytes& target, const RefineSettings& settings) {
    const Refined refined = refine(basis, target, settings);
    ASSERT_FALSE(testing::Test::HasFatalFailure());
    // No EXPECT_EQ: it would print megabytes.
    EXPECT_TRUE(rebuild(refined.plan, basis, target) == target);
    // Levels, each asked for once.
    EXPECT_LE(refined.asks, (kCoarsestLevel - kFinestLevel) / kLevelStep + 1);
  }
};

INSTANTIATE_TEST_SUITE_P(Bases, RefinerRebuilds, testing::ValuesIn(kBasisKinds),
                         [](const auto& about) { return std::string(about.param.name); });

TEST_P(RefinerRebuilds, SmallTargetsAtAllLevels) {
  for (const TargetKind kind : kTargetKinds) {
    for (const size_t size : {0,    1,    63,   64,   65,   255,  256,  257,    1023,   1024,
                              1025, 2047, 2048, 2049, 4095, 4096, 4097, 16'383, 16'384, 16'385}) {
      const Bytes target = make_target(kind, size);
      const Bytes basis = GetParam().make(target);
      for (const unsigned kept : {10U, 12U, 14U}) {
        for (const unsigned finest : {6U, 8U, 10U}) {
          SCOPED_TRACE(testing::Message() << "kind " << static_cast<int>(kind) << ", size " << size
                                          << ", kept " << kept << ", finest " << finest);
          check(basis, target, {.finest_kept_level = kept, .finest_level = finest});
        }
      }
    }
  }
}

TEST_P(RefinerRebuilds, MiddlingTargetsOnOneThreadAndFour) {
  for (const TargetKind kind : kTargetKinds) {
    for (const size_t size : {100'000, 262'143, 262'144, 262'145}) {
      const Bytes target = make_target(kind, size);
      const Bytes basis = GetParam().make(target);
      for (const unsigned finest : {6U, 8U, 10U}) {
        SCOPED_TRACE(testing::Message() << "kind " << static_cast<int>(kind) << ", size " << size
                                        << ", finest " << finest);
        check(basis, target, {.finest_level = finest});
      }
      check(basis, target, {.parallel = four_threads});
    }
  }
}

TEST_P(RefinerRebuilds, LargeTargetsOnOneThreadAndFour) {
  for (const TargetKind kind : kTargetKinds) {
    const Bytes target = make_target(kind, 3'000'000);
    const Bytes basis = GetParam().make(target);
    SCOPED_TRACE(testing::Message() << "kind " << static_cast<int>(kind));
    check(basis, target, {});
    check(basis, target, {.finest_kept_level = 12, .parallel = four_threads});
  }
}

// --- Quality: what a delta must find ------------------------------------------------------------

TEST(Refiner, FindsAnEqualFileAsOneCopy) {
  for (const size_t size : {1, 1000, 1024, 2048, 100'000, 1 << 20, 3'000'001}) {
    const Bytes target = noise(1, size);
    const Refined refined = refine(target, target);
    EXPECT_EQ(refined.plan.copies, (std::vector<Copy>{{0, 0, size}})) << size;
    EXPECT_EQ(refined.asks, 1U) << size;
  }
}

TEST(Refiner, AsksNothingWithoutABasisOrATarget) {
  EXPECT_FALSE(Refiner({.target_bytes = 1000, .basis_bytes = 0}).ask());
  EXPECT_FALSE(Refiner({.target_bytes = 0, .basis_bytes = 1000}).ask());
  EXPECT_TRUE(Refiner({.target_bytes = 1, .basis_bytes = 1}).ask());
}

TEST(Refiner, AsksNothingOfAServerWhoseLevelsItDoesNotKnow) {
  for (const unsigned level : {0U, 5U, 7U, 30U}) {
    EXPECT_FALSE(
        Refiner({.target_bytes = 1 << 20, .basis_bytes = 1 << 20, .finest_kept_level = level})
            .ask());
    EXPECT_FALSE(
        Refiner({.target_bytes = 1 << 20, .basis_bytes = 1 << 20, .finest_level = level}).ask());
  }
}

TEST(Refiner, PaysTwoFinestBlocksForAByteAtTheFront) {
  for (const size_t size : {5000, 100'000, 3'000'000}) {
    const Bytes basis = noise(1, size);
    EXPECT_LE(literal_bytes(refine(basis, Bytes{1} + basis).plan), 2 * 256U) << size;
    EXPECT_LE(literal_bytes(refine(basis, slice(basis, 1, size - 1)).plan), 2 * 256U) << size;
  }
}

TEST(Refiner, PaysTwoFinestBlocksForAByteInside) {
  for (const size_t size : {5000, 100'000, 3'000'000}) {
    const Bytes basis = noise(1, size);
    const Bytes target =
        slice(basis, 0, size / 2) + Bytes{1} + slice(basis, size / 2, size - size / 2);
    EXPECT_LE(literal_bytes(refine(basis, target).plan), 2 * 256U) << size;
    EXPECT_LE(literal_bytes(refine(target, basis).plan), 2 * 256U) << size;
  }
}

TEST(Refiner, FindsTheOldPartOfAGrownLogAsOneCopy) {
  for (const size_t size : {50'000, 1'000'000, 3'000'001}) {
    const Bytes basis = prose(1, size);
    const Bytes target = basis + prose(2, size / 10);
    const Refined refined = refine(basis, target);
    ASSERT_FALSE(refined.plan.copies.empty());
    const Copy& old_part = refined.plan.copies.front();
    EXPECT_EQ(old_part.target_offset, 0U);
    EXPECT_EQ(old_part.basis_offset, 0U);
    // Less of the basis than a block of 1 KiB is not looked for in so much that is new.
    EXPECT_GE(old_part.length_bytes + 1024, size);
    EXPECT_LE(refined.sum_bytes, target.size() / 100);
  }
}

TEST(Refiner, FindsABlockThatMoved) {
  const Bytes moved = noise(1, 64 << 10);
  const Bytes rest = noise(2, 3'000'000);
  const Bytes basis = slice(rest, 0, 700'001) + moved + slice(rest, 700'001, 2'299'999);
  const Bytes target = slice(rest, 0, 2'000'003) + moved + slice(rest, 2'000'003, 999'997);
  EXPECT_LE(literal_bytes(refine(basis, target).plan), 6 * 1024U);
}

TEST(Refiner, FindsContentThatIsThereTwice) {
  // At the same place in a block each time.
  const Bytes half = noise(1, 512 << 10);
  EXPECT_EQ(literal_bytes(refine(half, half + half).plan), 0U);
  // At different ones, in a basis that has it twice too.
  const Bytes odd = noise(2, 500'001);
  EXPECT_LE(literal_bytes(refine(odd + odd, odd + Bytes{1} + odd).plan), 1024U);
}

TEST(Refiner, FindsThatBlocksChangedPlaces) {
  const Bytes target = noise(1, 1 << 20);
  EXPECT_LE(literal_bytes(refine(reversed_blocks(target, 16 << 10), target).plan),
            target.size() / 20);
}

TEST(Refiner, StopsEarlyWhereNothingIsInCommon) {
  for (const size_t size : {2048, 10'000, 100'000, 3'000'000}) {
    const Bytes target = noise(1, size);
    const Refined refined = refine(noise(2, size), target);
    EXPECT_TRUE(refined.plan.copies.empty());
    EXPECT_LE(refined.sum_bytes, size / 100) << size;
  }
}

TEST(Refiner, FindsTheSamePlanOnOneThreadAndFour) {
  const Bytes target = prose(1, 20 << 20);
  const Bytes basis = edited(target);
  const Plan one = refine(basis, target).plan;
  const Plan four = refine(basis, target, {.parallel = four_threads}).plan;
  EXPECT_TRUE(one.copies == four.copies);
  EXPECT_TRUE(rebuild(one, basis, target) == target);
  EXPECT_LE(literal_bytes(one), target.size() / 20);
}

TEST(Refiner, KeepsWhatItFoundWhenStopped) {
  const Bytes basis = noise(1, 100'000);
  const Bytes target = Bytes{1} + basis;
  Refiner refiner({.target_bytes = target.size(), .basis_bytes = basis.size()});
  MemoryBasis memory(basis);
  ASSERT_TRUE(refiner.ask());
  ASSERT_TRUE(refiner.answer(sums_for(target, *refiner.ask()), memory.reader(), one_thread));
  ASSERT_TRUE(refiner.ask());
  refiner.stop();
  EXPECT_FALSE(refiner.ask());
  EXPECT_LE(literal_bytes(refiner.plan()), 1024U);
}

// --- Evidence -----------------------------------------------------------------------------------

TEST(Refiner, TrustsASingleMatchOfAShortSumInASmallFile) {
  // One block of 1 KiB in common, with nothing beside it.
  const Bytes shared = noise(1, 1024);
  const Bytes basis = noise(2, 3000) + shared + noise(3, 3000);
  const Bytes target = noise(4, 2048) + shared + noise(5, 2048);
  Refiner refiner({.target_bytes = target.size(), .basis_bytes = basis.size()});
  ASSERT_TRUE(refiner.ask());
  EXPECT_EQ(refiner.ask()->width, kLeastWidth);
  const Refined refined = refine(basis, target);
  EXPECT_EQ(refined.plan.copies, (std::vector<Copy>{{2048, 3000, 1024}}));
}

TEST(Refiner, AsksForMoreEvidenceOfLargeFiles) {
  unsigned last = kLeastWidth;
  for (uint64_t size = 1 << 12; size <= uint64_t{1} << 40; size <<= 4) {
    const Refiner refiner({.target_bytes = size, .basis_bytes = size});
    ASSERT_TRUE(refiner.ask());
    EXPECT_GE(refiner.ask()->width, last) << size;
    last = refiner.ask()->width;
  }
  EXPECT_GE(last, 7U);
}

TEST(Refiner, AcceptsWrongMatchesNoMoreOftenThanChanceAllows) {
  // Files that have nothing in common but some blocks far apart, so that many matches stand alone.
  // A wrong one makes the whole file cross the wire: that may happen once in some hundred files.
  constexpr int kFiles = 300;
  int wrong = 0;
  std::mt19937_64 random(2024);
  for (int file = 0; file < kFiles; ++file) {
    const size_t size = 4096 + random() % 60'000;
    const Bytes target = noise(random(), size);
    Bytes basis = noise(random(), size);
    for (size_t at = 0; at + 4096 <= size; at += 4096 + random() % 16'000) {
      const size_t part = 1024 + random() % 3072;
      std::copy_n(target.begin() + static_cast<ptrdiff_t>(at), part,
                  basis.begin() + static_cast<ptrdiff_t>(at));
    }
    if (rebuild(refine(basis, target, {.finest_level = 6}).plan, basis, target) != target) ++wrong;
  }
  EXPECT_LE(wrong, 3);
}

// --- Hostile answers and bases ------------------------------------------------------------------

TEST(Refiner, RefusesAnswersOfAnotherLength) {
  const Bytes basis = noise(1, 100'000);
  const Bytes target = Bytes{1} + basis;
  MemoryBasis memory(basis);
  Refiner refiner({.target_bytes = target.size(), .basis_bytes = basis.size()});
  const Bytes right = sums_for(target, *refiner.ask());
  const Bytes longer = right + Bytes(refiner.ask()->width, 0);
  const Bytes wrong[] = {{},
                         slice(right, 0, right.size() - 1),
                         slice(right, 0, right.size() - refiner.ask()->width),
                         right + Bytes{0},
                         longer};
  for (const Bytes& answer : wrong) {
    const Status status = refiner.answer(answer, memory.reader(), one_thread);
    ASSERT_FALSE(status.has_value()) << answer.size();
    EXPECT_EQ(status.error().code, Errc::kProtocol);
  }
  EXPECT_EQ(memory.reads(), 0U);
  // Nothing was lost by it.
  EXPECT_TRUE(refiner.answer(right, memory.reader(), one_thread).has_value());
  EXPECT_LE(literal_bytes(refiner.plan()), 1024U);
}

TEST(RefinerDeathTest, TakesNoAnswerThatWasNotAskedFor) {
  Refiner refiner({.target_bytes = 0, .basis_bytes = 0});
  const auto read = [](uint64_t, MutableBytes) { return true; };
  EXPECT_DEATH(static_cast<void>(refiner.answer({}, read, one_thread)), "CHECK failed");
}

using Forge = std::function<Bytes(const Refiner::Ask&)>;

struct Effort {
  uint64_t asks = 0;
  uint64_t most_read_bytes = 0;  // For one answer.
};

// Plays a server that answers what it likes; expects a plan that can be carried out.
Effort refine_forged(const Bytes& basis, uint64_t target_bytes, const Forge& forge) {
  Effort effort;
  Refiner refiner({.target_bytes = target_bytes, .basis_bytes = basis.size(), .finest_level = 6});
  while (refiner.ask()) {
    check_ask(*refiner.ask(), target_bytes);
    MemoryBasis memory(basis);
    EXPECT_TRUE(refiner.answer(forge(*refiner.ask()), memory.reader(), four_threads).has_value());
    check_plan(refiner.plan(), target_bytes, basis.size());
    if (testing::Test::HasFatalFailure()) break;
    ++effort.asks;
    effort.most_read_bytes = std::max(effort.most_read_bytes, memory.read_bytes());
  }
  EXPECT_LE(effort.asks, (kCoarsestLevel - kFinestLevel) / kLevelStep + 1);
  return effort;
}

// Bytes read for one answer, of the basis and the target: a run of missing blocks may cost a page
// on either side.
constexpr uint64_t kMostReadTimes = 24;

class HostileServer : public testing::TestWithParam<size_t> {
 protected:
  static void expect_bounded(const Bytes& basis, uint64_t target_bytes, const Forge& forge) {
    const Effort effort = refine_forged(basis, target_bytes, forge);
    EXPECT_LE(effort.most_read_bytes,
              kMostReadTimes * (basis.size() + target_bytes) + uint64_t{64 << 10});
  }
  static std::vector<Bytes> bases(size_t size) {
    return {Bytes(size, 0), noise(1, size), prose(2, size), periodic(size, 64),
            periodic(size, 777)};
  }
};

INSTANTIATE_TEST_SUITE_P(Sizes, HostileServer, testing::Values(1, 2048, 100'000, 3'000'000),
                         [](const auto& about) { return std::to_string(about.param); });

TEST_P(HostileServer, ThatSaysAllBlocksAreEqual) {
  for (const Bytes& basis : bases(GetParam())) {
    // Equal to the basis's first block, or to nothing.
    for (const bool is_there : {true, false}) {
      expect_bounded(basis, GetParam(), [&](const Refiner::Ask& ask) {
        const size_t length = std::min<size_t>(block_length_bytes(ask.level), basis.size());
        const BlockSum sum = is_there ? block_sum(ByteView(basis).first(length), ask.level)
                                      : BlockSum{.weak = 123, .strong = 456};
        Bytes sums;
        append_sums(std::vector<BlockSum>(ask.block_count(), sum), ask.width, sums);
        return sums;
      });
    }
  }
}

TEST_P(HostileServer, ThatSaysAllWeakSumsAreZero) {
  for (const Bytes& basis : bases(GetParam())) {
    std::mt19937_64 random(1);
    expect_bounded(basis, GetParam(), [&](const Refiner::Ask& ask) {
      std::vector<BlockSum> forged(ask.block_count());
      for (BlockSum& sum : forged)
        sum.strong = static_cast<uint32_t>(random());
      Bytes sums;
      append_sums(forged, ask.width, sums);
      return sums;
    });
  }
}

TEST_P(HostileServer, ThatAnswersNoise) {
  for (const Bytes& basis : bases(GetParam())) {
    expect_bounded(basis, GetParam(),
                   [](const Refiner::Ask& ask) { return noise(ask.level, ask.size_bytes()); });
  }
}

TEST_P(HostileServer, ThatAnswersWithAnotherFile) {
  const Bytes other = noise(5, GetParam());
  for (const Bytes& basis : bases(GetParam()))
    expect_bounded(basis, GetParam(),
                   [&](const Refiner::Ask& ask) { return sums_for(other, ask); });
}

TEST_P(HostileServer, ThatTellsTheTruthOfEverySecondBlockInReversedOrder) {
  // Then half the blocks stay missing, each between two that lie far apart in the basis.
  for (const Bytes& basis : bases(GetParam())) {
    expect_bounded(basis, GetParam(), [&](const Refiner::Ask& ask) {
      const uint64_t length = block_length_bytes(ask.level);
      Bytes sums;
      for (const BlockRun& run : ask.runs) {
        for (uint64_t block = run.first; block < run.end(); ++block) {
          const uint64_t from_end = (block + 1) << ask.level;
          BlockSum sum{.weak = 123, .strong = 456};
          const bool is_true = block % 2 == 0 && from_end <= basis.size();
          if (is_true) {
            sum = block_sum(ByteView(basis).subspan(basis.size() - from_end, length), ask.level);
          }
          append_sums(std::span(&sum, 1), ask.width, sums);
        }
      }
      return sums;
    });
  }
}

TEST_P(HostileServer, ThatKnowsTheBasisButNotTheTarget) {
  // The sums of the basis itself, for a target of another length.
  for (const Bytes& basis : bases(GetParam())) {
    for (const uint64_t target_bytes : {GetParam() / 2 + 1, GetParam() * 2}) {
      expect_bounded(basis, target_bytes, [&](const Refiner::Ask& ask) {
        Bytes repeated = basis;
        repeated.resize(target_bytes, 1);
        return sums_for(repeated, ask);
      });
    }
  }
}

TEST(Refiner, EndsInAUsablePlanWhereverTheBasisCannotBeRead) {
  constexpr size_t kBytes = 2 << 20;
  const Bytes target = noise(1, kBytes);
  const Bytes basis = edited(target);
  for (uint64_t fail_from = 0; fail_from < basis.size() + 300'000; fail_from += 150'001) {
    MemoryBasis memory(basis);
    memory.fail_from(fail_from);
    Refiner refiner({.target_bytes = target.size(), .basis_bytes = basis.size()});
    while (refiner.ask()) {
      const Bytes sums = sums_for(target, *refiner.ask());
      ASSERT_TRUE(refiner.answer(sums, memory.reader(), four_threads).has_value());
    }
    check_plan(refiner.plan(), target.size(), basis.size());
    EXPECT_TRUE(rebuild(refiner.plan(), basis, target) == target) << fail_from;
  }
}

TEST(Refiner, FindsWhatABasisHoldsThatCanBeReadInPart) {
  const Bytes target = noise(1, 3'000'000);
  MemoryBasis memory(target);
  memory.fail_from(2'500'000);
  Refiner refiner({.target_bytes = target.size(), .basis_bytes = target.size()});
  while (refiner.ask())
    ASSERT_TRUE(refiner.answer(sums_for(target, *refiner.ask()), memory.reader(), one_thread));
  EXPECT_GE(refiner.plan().copied_bytes(), 1'000'000U);
}

}  // namespace
}  // namespace superlifter::delta
