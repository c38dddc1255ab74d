// The weak checksum: a polynomial over the bytes of a block, modulo 2^32.
//
//   weak(c[0..n)) = c[0]·M^(n-1) + c[1]·M^(n-2) + … + c[n-1]
//
// Why a polynomial (Karp and Rabin 1987) and not rsync's pair of sums: all its 32 bits depend on
// all bytes, so that in small files it can stand without a strong checksum beside it; the sums of
// two neighbours join into that of both; and whole blocks go through vector units. It slides by one
// byte in one multiplication. It is no defence against somebody who wants a collision: what it
// finds is only a candidate, and the file's digest has the last word.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/base/bytes.h"

namespace superlifter::hash {

// 5 modulo 8, so its powers modulo 2^32 repeat only after 2^30 bytes; otherwise a random number.
constexpr uint32_t kWeakMultiplier = 0x9E6D'2C3D;

// M^exponent. Cost: at most 64 multiplications.
constexpr uint32_t weak_power(uint64_t exponent) {
  uint32_t power = 1;
  for (uint32_t base = kWeakMultiplier; exponent > 0; exponent >>= 1, base *= base) {
    if ((exponent & 1) != 0) power *= base;
  }
  return power;
}

// The sum of a whole block. Cost: some 0.06 ns a byte.
uint32_t weak_sum(ByteView block);

// The sum of two neighbours, from the sum of each and M^(length of the right one).
constexpr uint32_t weak_join(uint32_t left, uint32_t right, uint32_t right_power) {
  return left * right_power + right;
}

// Slides the sum of a block of fixed length by one byte.
class WeakRoller {
 public:
  explicit WeakRoller(uint64_t block_length_bytes) {
    const uint32_t power = weak_power(block_length_bytes);
    for (uint32_t byte = 0; byte < leaving_.size(); ++byte)
      leaving_[byte] = byte * power;
  }

  // The sum after `out` left at the front and `in` came at the end.
  uint32_t roll(uint32_t sum, uint8_t out, uint8_t in) const {
    return sum * kWeakMultiplier + (in - leaving_[out]);
  }

 private:
  std::array<uint32_t, 256> leaving_{};  // byte · M^length.
};

}  // namespace superlifter::hash
