#include "core/hash/rolling.h"

namespace superlifter::hash {
namespace {

// Bytes that one step takes. As many as keep a sum of (255 · a half of a power) within 31 bits:
// 256 · 255 · 2^15 < 2^31.
constexpr size_t kStepBytes = 256;

// What each byte of a step is multiplied by: M^255 … M^0, each as low + 2^16 · high, with halves
// that have a sign. Then a step is two inner products of 16-bit numbers, which vector units
// multiply and add in one instruction (pmaddwd, in every x86-64); a 32-bit multiplication (pmulld)
// takes ten cycles, and half the speed was left with it.
struct Halves {
  std::array<int16_t, kStepBytes> low{};
  std::array<int16_t, kStepBytes> high{};
};

constexpr Halves step_powers() {
  Halves powers;
  for (size_t i = 0; i < kStepBytes; ++i) {
    const uint32_t power = weak_power(kStepBytes - 1 - i);
    powers.low[i] = static_cast<int16_t>(power);
    const uint32_t rest = power - static_cast<uint32_t>(powers.low[i]);
    powers.high[i] = static_cast<int16_t>(rest >> 16);
  }
  return powers;
}

// The sum of up to kStepBytes. The compiler makes vector code of the loop. (A clone for AVX2 was
// some 15 % faster, but ThreadSanitizer cannot run the resolver that chooses between clones.)
uint32_t sum_step(const uint8_t* bytes, size_t count) {
  static constexpr Halves kPowers = step_powers();
  const int16_t* const low_powers = kPowers.low.data() + (kStepBytes - count);
  const int16_t* const high_powers = kPowers.high.data() + (kStepBytes - count);
  int32_t low = 0;
  int32_t high = 0;
  for (size_t i = 0; i < count; ++i) {
    const int16_t byte = bytes[i];
    low += byte * low_powers[i];
    high += byte * high_powers[i];
  }
  return static_cast<uint32_t>(low) + (static_cast<uint32_t>(high) << 16);
}

}  // namespace

uint32_t weak_sum(ByteView block) {
  constexpr uint32_t kStep = weak_power(kStepBytes);
  const size_t rest = block.size() % kStepBytes;
  uint32_t sum = sum_step(block.data(), rest);
  for (size_t at = rest; at < block.size(); at += kStepBytes)
    sum = sum * kStep + sum_step(block.data() + at, kStepBytes);
  return sum;
}

}  // namespace superlifter::hash
