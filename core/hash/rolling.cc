#include "core/hash/rolling.h"

namespace superlifter::hash {
namespace {

// Bytes that one step takes: eight vectors of eight sums, which hides the latency of the
// multiplication (10 cycles for vpmulld).
constexpr size_t kLanes = 64;

// What each lane's sum is multiplied by in the end: M^63 … M^0.
constexpr std::array<uint32_t, kLanes> lane_powers() {
  std::array<uint32_t, kLanes> powers{};
  for (size_t lane = 0; lane < kLanes; ++lane)
    powers[lane] = weak_power(kLanes - 1 - lane);
  return powers;
}

// Horner's rule in all lanes side by side. The compiler makes vector code of the inner loops, once
// for each kind of machine; which of them runs is decided when the program starts.
[[gnu::target_clones("avx512f", "avx2", "sse4.1", "default")]] uint32_t sum_steps(
    const uint8_t* bytes, size_t steps) {
  constexpr uint32_t kStep = weak_power(kLanes);
  constexpr std::array<uint32_t, kLanes> kPowers = lane_powers();
  std::array<uint32_t, kLanes> sums{};
  for (; steps > 0; --steps, bytes += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane)
      sums[lane] = sums[lane] * kStep + bytes[lane];
  }
  uint32_t sum = 0;
  for (size_t lane = 0; lane < kLanes; ++lane)
    sum += sums[lane] * kPowers[lane];
  return sum;
}

}  // namespace

uint32_t weak_sum(ByteView block) {
  const size_t steps = block.size() / kLanes;
  uint32_t sum = steps > 0 ? sum_steps(block.data(), steps) : 0;
  for (const uint8_t byte : block.subspan(steps * kLanes))
    sum = sum * kWeakMultiplier + byte;
  return sum;
}

}  // namespace superlifter::hash
