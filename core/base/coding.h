// Bounded reading and writing of fixed-width little-endian integers, LEB128 varints and counted
// bytes. The one decoder for hostile bytes: wire, nodes and catalog headers all go through Reader.
//
// The first failure sticks: later reads return zeros and empty views, so a decoder reads a whole
// structure and asks once, at the end, whether it was there. "Incomplete" and "invalid" are told
// apart because a deframer must wait for the first and hang up on the second.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/base/bytes.h"
#include "core/base/result.h"

namespace superlifter {

class Reader {
 public:
  // Borrows [0, n) bytes for its lifetime; views it returns live as long as they do.
  explicit Reader(ByteView bytes) : rest_(bytes) {}

  uint8_t u8();
  uint16_t u16();
  uint32_t u32();
  uint64_t u64();
  int64_t i64() { return static_cast<int64_t>(u64()); }

  // LEB128, at most 10 bytes, shortest form only (a longer one is invalid, so that every value has
  // one encoding).
  uint64_t varint();
  // A varint that must not exceed `most`.
  uint64_t varint_at_most(uint64_t most);

  // Exactly `count` bytes.
  ByteView bytes(size_t count);
  // A varint length, at most `most`, and that many bytes.
  std::string_view counted(size_t most);

  // Marks the input invalid; for a decoder's own rules.
  void invalidate();

  bool ok() const { return state_ == State::kOk; }
  size_t remaining() const { return rest_.size(); }

  // Ok when nothing failed and nothing is left. kTruncated or kProtocol otherwise, naming `what`.
  [[nodiscard]] Status finish(std::string_view what) const;

 private:
  enum class State { kOk, kTruncated, kInvalid };

  ByteView rest_;  // Empty once state_ is not kOk.
  State state_ = State::kOk;
};

class Writer {
 public:
  // Appends to `out`, which it borrows.
  explicit Writer(Bytes& out) : out_(out) {}

  void u8(uint8_t value) { out_.push_back(value); }
  void u16(uint16_t value);
  void u32(uint32_t value);
  void u64(uint64_t value);
  void i64(int64_t value) { u64(static_cast<uint64_t>(value)); }
  void varint(uint64_t value);
  void bytes(ByteView value) { out_.insert(out_.end(), value.begin(), value.end()); }
  void counted(std::string_view value);

 private:
  Bytes& out_;
};

}  // namespace superlifter
