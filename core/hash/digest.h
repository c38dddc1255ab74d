// Digests of blocks, files and nodes.
//
// XXH3-128 (xxHash) is the end-to-end check against corruption: it costs less than the read.
// SHA-256 (libcrypto, which uses the SHA instructions where there are any) names directory nodes,
// and files where a digest must withstand somebody who wants a collision.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <memory>
#include <string>

#include "core/base/bytes.h"

namespace superlifter::hash {

// 16 bytes in the canonical (big-endian) order of xxHash. All zero: not known.
struct Xxh128 {
  std::array<uint8_t, 16> bytes{};
  bool known() const { return *this != Xxh128{}; }
  friend auto operator<=>(const Xxh128&, const Xxh128&) = default;
};

// 32 bytes. All zero: not known.
struct Sha256 {
  std::array<uint8_t, 32> bytes{};
  bool known() const { return *this != Sha256{}; }
  friend auto operator<=>(const Sha256&, const Sha256&) = default;
};

Xxh128 xxh128(ByteView bytes);
uint64_t xxh64(ByteView bytes);  // XXH3, 64 bits, seed 0.
Sha256 sha256(ByteView bytes);

// Lower-case hexadecimal.
std::string to_hex(ByteView bytes);

// Digests of bytes that come in pieces. Movable; one thread at a time.
class Xxh128Hasher {
 public:
  Xxh128Hasher();
  ~Xxh128Hasher();
  Xxh128Hasher(Xxh128Hasher&&) noexcept;
  Xxh128Hasher& operator=(Xxh128Hasher&&) noexcept;
  Xxh128Hasher(const Xxh128Hasher&) = delete;
  Xxh128Hasher& operator=(const Xxh128Hasher&) = delete;

  // Begins again.
  void reset();
  void update(ByteView bytes);
  // The digest of all bytes since reset; more may follow.
  Xxh128 digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

class Sha256Hasher {
 public:
  Sha256Hasher();
  ~Sha256Hasher();
  Sha256Hasher(Sha256Hasher&&) noexcept;
  Sha256Hasher& operator=(Sha256Hasher&&) noexcept;
  Sha256Hasher(const Sha256Hasher&) = delete;
  Sha256Hasher& operator=(const Sha256Hasher&) = delete;

  void reset();
  void update(ByteView bytes);
  // The digest of all bytes since reset. Call reset before the next update.
  Sha256 finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace superlifter::hash
