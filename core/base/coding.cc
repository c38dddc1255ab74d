#include "core/base/coding.h"

#include <bit>
#include <cstring>

namespace superlifter {
namespace {

static_assert(std::endian::native == std::endian::little, "encodings are copied as they stand");

template <class T>
T load(ByteView bytes) {
  T value = 0;
  if (bytes.size() == sizeof(T)) std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

template <class T>
void store(Bytes& out, T value) {
  const size_t at = out.size();
  out.resize(at + sizeof(T));
  std::memcpy(out.data() + at, &value, sizeof(T));
}

}  // namespace

uint8_t Reader::u8() {
  return load<uint8_t>(bytes(1));
}
uint16_t Reader::u16() {
  return load<uint16_t>(bytes(2));
}
uint32_t Reader::u32() {
  return load<uint32_t>(bytes(4));
}
uint64_t Reader::u64() {
  return load<uint64_t>(bytes(8));
}

uint64_t Reader::varint() {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 70; shift += 7) {
    const uint8_t byte = u8();
    if (!ok()) return 0;
    const uint64_t part = byte & 0x7FU;
    const bool overflows = shift == 63 && part > 1;
    const bool padded = shift > 0 && byte == 0;
    if (overflows || padded) break;
    value |= part << shift;
    if ((byte & 0x80U) == 0) return value;
  }
  invalidate();
  return 0;
}

uint64_t Reader::varint_at_most(uint64_t most) {
  const uint64_t value = varint();
  if (value <= most) return value;
  invalidate();
  return 0;
}

ByteView Reader::bytes(size_t count) {
  if (state_ != State::kOk) return {};
  if (count > rest_.size()) {
    state_ = State::kTruncated;
    rest_ = {};
    return {};
  }
  const ByteView taken = rest_.first(count);
  rest_ = rest_.subspan(count);
  return taken;
}

std::string_view Reader::counted(size_t most) {
  const uint64_t count = varint_at_most(most);
  return as_text(bytes(static_cast<size_t>(count)));
}

void Reader::invalidate() {
  if (state_ == State::kOk) state_ = State::kInvalid;
  rest_ = {};
}

Status Reader::finish(std::string_view what) const {
  switch (state_) {
    case State::kTruncated:
      return fail(Errc::kTruncated, std::string(what) + ": ends too early");
    case State::kInvalid:
      return fail(Errc::kProtocol, std::string(what) + ": holds a value that is not allowed");
    case State::kOk:
      break;
  }
  if (!rest_.empty()) {
    return fail(Errc::kProtocol, std::string(what) + ": has bytes after its end");
  }
  return {};
}

void Writer::u16(uint16_t value) {
  store(out_, value);
}
void Writer::u32(uint32_t value) {
  store(out_, value);
}
void Writer::u64(uint64_t value) {
  store(out_, value);
}

void Writer::varint(uint64_t value) {
  while (value >= 0x80) {
    out_.push_back(static_cast<uint8_t>(value | 0x80U));
    value >>= 7;
  }
  out_.push_back(static_cast<uint8_t>(value));
}

void Writer::counted(std::string_view value) {
  varint(value.size());
  bytes(as_bytes(value));
}

}  // namespace superlifter
