#include "core/base/escape.h"

#include <cstdint>

namespace superlifter {
namespace {

// Length of the well-formed UTF-8 sequence at the front of `text` (RFC 3629), 0 if there is none.
size_t utf8_length(std::string_view text) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = at(0);
  size_t length = 0;
  uint32_t smallest = 0;
  uint32_t point = 0;
  if (lead < 0x80) return 1;
  if ((lead & 0xE0U) == 0xC0) {
    length = 2;
    smallest = 0x80;
    point = lead & 0x1FU;
  } else if ((lead & 0xF0U) == 0xE0) {
    length = 3;
    smallest = 0x800;
    point = lead & 0x0FU;
  } else if ((lead & 0xF8U) == 0xF0) {
    length = 4;
    smallest = 0x10000;
    point = lead & 0x07U;
  } else {
    return 0;
  }
  if (text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xC0U) != 0x80) return 0;
    point = (point << 6) | (at(i) & 0x3FU);
  }
  const bool surrogate = point >= 0xD800 && point <= 0xDFFF;
  const bool c1_control = point >= 0x80 && point < 0xA0;
  // Marks that change the reading direction could make a name look like another one.
  const bool direction = point == 0x061C || (point >= 0x200E && point <= 0x200F) ||
                         (point >= 0x2028 && point <= 0x202E) ||
                         (point >= 0x2066 && point <= 0x2069);
  if (point < smallest || point > 0x10FFFF || surrogate || c1_control || direction) return 0;
  return length;
}

}  // namespace

std::string escape(std::string_view bytes) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    const auto byte = static_cast<uint8_t>(bytes[0]);
    size_t length = utf8_length(bytes);
    if (byte < 0x20 || byte == 0x7F || byte == '\\') length = 0;
    if (length == 0) {
      out += "\\x";
      out += kHex[byte >> 4];
      out += kHex[byte & 0x0FU];
      length = 1;
    } else {
      out += bytes.substr(0, length);
    }
    bytes.remove_prefix(length);
  }
  return out;
}

}  // namespace superlifter
