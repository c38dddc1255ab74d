// Basis, target and server of a delta, all in memory, for the tests of core/delta.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <string_view>
#include <thread>
#include <vector>

#include "core/base/bytes.h"
#include "core/delta/matcher.h"
#include "core/delta/plan.h"
#include "core/delta/refiner.h"
#include "core/delta/signature.h"

namespace superlifter::delta {

inline Bytes noise(uint64_t seed, size_t size) {
  std::mt19937_64 random(seed);
  Bytes bytes(size);
  for (size_t at = 0; at < size; at += 8) {
    const uint64_t word = random();
    std::memcpy(bytes.data() + at, &word, std::min<size_t>(8, size - at));
  }
  return bytes;
}

// Lines of words: much that recurs, at no fixed distance.
inline Bytes prose(uint64_t seed, size_t size) {
  constexpr std::array<std::string_view, 12> kWords = {
      "return ", "const ", "uint64_t ", "offset", " = ",   "block",
      ";\n",     "  ",     "if (",      ") {\n",  "}\n\n", "length_bytes "};
  std::mt19937_64 random(seed);
  Bytes bytes;
  bytes.reserve(size + 32);
  while (bytes.size() < size) {
    const std::string_view word = kWords[random() % kWords.size()];
    bytes.insert(bytes.end(), word.begin(), word.end());
    if (random() % 16 == 0) bytes.push_back(static_cast<uint8_t>('a' + random() % 26));
  }
  bytes.resize(size);
  return bytes;
}

inline Bytes slice(const Bytes& bytes, size_t offset, size_t size) {
  const ByteView view = ByteView(bytes).subspan(offset, size);
  return {view.begin(), view.end()};
}

inline Bytes operator+(Bytes left, const Bytes& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

// Reads a basis and counts what that costs. Safe on several threads.
class MemoryBasis {
 public:
  explicit MemoryBasis(ByteView bytes) : bytes_(bytes) {}
  MemoryBasis(const MemoryBasis&) = delete;
  MemoryBasis& operator=(const MemoryBasis&) = delete;
  ~MemoryBasis() = default;

  BasisReader reader() {
    return [this](uint64_t offset, MutableBytes into) { return read(offset, into); };
  }
  // A read that needs bytes from this offset on fails, and leaves rubbish behind.
  void fail_from(uint64_t offset) { fail_from_ = offset; }

  uint64_t size() const { return bytes_.size(); }
  uint64_t read_bytes() const { return read_bytes_; }
  uint64_t reads() const { return reads_; }

 private:
  bool read(uint64_t offset, MutableBytes into) {
    const bool is_inside = offset <= bytes_.size() && into.size() <= bytes_.size() - offset;
    EXPECT_TRUE(is_inside) << "read of " << into.size() << " bytes at " << offset << " of "
                           << bytes_.size();
    ++reads_;
    read_bytes_ += into.size();
    if (!is_inside || offset + into.size() > fail_from_) {
      std::fill(into.begin(), into.end(), uint8_t{0xAA});
      return false;
    }
    const ByteView from = bytes_.subspan(offset, into.size());
    std::copy(from.begin(), from.end(), into.begin());
    return true;
  }

  const ByteView bytes_;
  uint64_t fail_from_ = UINT64_MAX;
  std::atomic<uint64_t> read_bytes_ = 0;
  std::atomic<uint64_t> reads_ = 0;
};

inline void one_thread(size_t count, const std::function<void(size_t)>& work) {
  for (size_t i = 0; i < count; ++i)
    work(i);
}

inline void four_threads(size_t count, const std::function<void(size_t)>& work) {
  std::atomic<size_t> next = 0;
  std::vector<std::jthread> threads;
  for (size_t i = 0; i < std::min<size_t>(4, count); ++i) {
    threads.emplace_back([&] {
      for (size_t item = next++; item < count; item = next++)
        work(item);
    });
  }
}

// What an honest server answers.
inline Bytes sums_for(ByteView target, const Refiner::Ask& ask) {
  Bytes sums;
  for (const BlockRun& run : ask.runs) {
    const uint64_t begin = run.first << ask.level;
    const uint64_t end = std::min<uint64_t>(run.end() << ask.level, target.size());
    append_sums(target.subspan(begin, end - begin), ask.level, ask.width, sums);
  }
  return sums;
}

// Expects of an ask what its contract says.
inline void check_ask(const Refiner::Ask& ask, uint64_t target_bytes) {
  EXPECT_TRUE(is_level(ask.level)) << ask.level;
  EXPECT_GE(ask.width, kLeastWidth);
  EXPECT_LE(ask.width, kMostWidth);
  ASSERT_FALSE(ask.runs.empty());
  for (size_t i = 0; i < ask.runs.size(); ++i) {
    EXPECT_GT(ask.runs[i].count, 0U);
    if (i > 0) {
      EXPECT_GT(ask.runs[i].first, ask.runs[i - 1].end());
    }
  }
  EXPECT_LE(ask.runs.back().end(), block_count(target_bytes, ask.level));
}

// Expects of a plan that it can be carried out: copies ascend, and lie inside both files.
inline void check_plan(const Plan& plan, uint64_t target_bytes, uint64_t basis_bytes) {
  EXPECT_EQ(plan.target_bytes, target_bytes);
  uint64_t at = 0;
  for (const Copy& copy : plan.copies) {
    EXPECT_GT(copy.length_bytes, 0U);
    ASSERT_GE(copy.target_offset, at);
    at = copy.target_end();
    ASSERT_LE(copy.basis_end(), basis_bytes);
  }
  ASSERT_LE(at, target_bytes);
}

// What the plan makes. REQUIRES: check_plan() found nothing.
inline Bytes rebuild(const Plan& plan, const Bytes& basis, const Bytes& target) {
  Bytes out(target.size());
  const auto put = [&](const Bytes& from, uint64_t offset, uint64_t to, uint64_t size) {
    const ByteView bytes = ByteView(from).subspan(offset, size);
    std::copy(bytes.begin(), bytes.end(), out.begin() + static_cast<ptrdiff_t>(to));
  };
  for (const Copy& copy : plan.copies)
    put(basis, copy.basis_offset, copy.target_offset, copy.length_bytes);
  for (const Range& literal : plan.literals())
    put(target, literal.offset, literal.offset, literal.length_bytes);
  return out;
}

struct Refined {
  Plan plan;
  uint64_t asks = 0;
  uint64_t sum_bytes = 0;
  uint64_t read_bytes = 0;
};

struct RefineSettings {
  unsigned finest_kept_level = kLeafLevel;
  unsigned finest_level = 8;
  ParallelFor parallel = one_thread;
};

// A delta from the first ask to the last.
inline Refined refine(const Bytes& basis, const Bytes& target,
                      const RefineSettings& settings = {}) {
  MemoryBasis memory(basis);
  Refiner refiner({.target_bytes = target.size(),
                   .basis_bytes = basis.size(),
                   .finest_kept_level = settings.finest_kept_level,
                   .finest_level = settings.finest_level});
  Refined refined;
  while (refiner.ask()) {
    check_ask(*refiner.ask(), target.size());
    if (testing::Test::HasFatalFailure()) break;
    const Bytes sums = sums_for(target, *refiner.ask());
    ++refined.asks;
    refined.sum_bytes += sums.size();
    const Status status = refiner.answer(sums, memory.reader(), settings.parallel);
    EXPECT_TRUE(status.has_value());
    if (!status) break;
    check_plan(refiner.plan(), target.size(), basis.size());
    if (testing::Test::HasFatalFailure()) break;
  }
  refined.plan = refiner.plan();
  refined.read_bytes = memory.read_bytes();
  return refined;
}

inline uint64_t literal_bytes(const Plan& plan) {
  return plan.target_bytes - plan.copied_bytes();
}

}  // namespace superlifter::delta
