#include "client/units.h"

#include <fmt/format.h>

#include <array>
#include <cctype>
#include <limits>

#include "core/base/escape.h"

namespace superlifter::client {
namespace {

struct Unit {
  std::string_view name;  // Lower case.
  uint64_t bytes = 0;
};

constexpr std::array<Unit, 14> kUnits = {{
    {"", 1},
    {"b", 1},
    {"k", uint64_t{1} << 10},
    {"kib", uint64_t{1} << 10},
    {"m", uint64_t{1} << 20},
    {"mib", uint64_t{1} << 20},
    {"g", uint64_t{1} << 30},
    {"gib", uint64_t{1} << 30},
    {"t", uint64_t{1} << 40},
    {"tib", uint64_t{1} << 40},
    {"kb", 1'000},
    {"mb", 1'000'000},
    {"gb", 1'000'000'000},
    {"tb", 1'000'000'000'000},
}};

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// Digits at the front of `text`, which moves past them.
std::string_view take_digits(std::string_view& text) {
  size_t count = 0;
  while (count < text.size() && is_digit(text[count]))
    ++count;
  const std::string_view digits = text.substr(0, count);
  text.remove_prefix(count);
  return digits;
}

// False when the value does not fit.
bool to_number(std::string_view digits, uint64_t& value) {
  value = 0;
  for (const char c : digits) {
    if (__builtin_mul_overflow(value, uint64_t{10}, &value)) return false;
    if (__builtin_add_overflow(value, static_cast<uint64_t>(c - '0'), &value)) return false;
  }
  return true;
}

}  // namespace

std::string human_bytes(uint64_t size_bytes) {
  static constexpr std::array<const char*, 6> kNames = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (size_bytes < 1024) return fmt::format("{} B", size_bytes);
  size_t index = 0;
  uint64_t unit = 1024;
  while (index + 1 < kNames.size() && size_bytes / unit >= 1024) {
    unit *= 1024;
    ++index;
  }
  const uint64_t whole = size_bytes / unit;
  uint64_t rest = size_bytes % unit;
  if (unit > uint64_t{1} << 50) {
    // A hundred times the rest of an EiB would not fit 64 bits.
    rest /= 1024;
    unit /= 1024;
  }
  const uint64_t hundredths = rest * 100 / unit;
  if (whole < 10) return fmt::format("{}.{:02} {}", whole, hundredths, kNames[index]);
  if (whole < 100) return fmt::format("{}.{} {}", whole, hundredths / 10, kNames[index]);
  return fmt::format("{} {}", whole, kNames[index]);
}

std::string human_duration(uint64_t seconds) {
  const uint64_t days = seconds / 86'400;
  const uint64_t hours = seconds / 3'600 % 24;
  const uint64_t minutes = seconds / 60 % 60;
  if (days > 0) return fmt::format("{}d {:02}:{:02}:{:02}", days, hours, minutes, seconds % 60);
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, minutes, seconds % 60);
  return fmt::format("{}:{:02}", minutes, seconds % 60);
}

std::string human_count(uint64_t count) {
  std::string digits = fmt::format("{}", count);
  for (size_t at = digits.size(); at > 3;) {
    at -= 3;
    digits.insert(at, 1, ',');
  }
  return digits;
}

Result<uint64_t> parse_bytes(std::string_view text) {
  const auto bad = [&](const char* why) {
    return fail(Errc::kConfig,
                fmt::format("'{}': {}; expected a number of bytes with an optional unit, such as "
                            "500000, 512KiB or 1.5MiB",
                            escape(text.substr(0, 64)), why));
  };
  std::string_view rest = text;
  const std::string_view whole_digits = take_digits(rest);
  std::string_view fraction_digits;
  if (whole_digits.empty()) return bad("does not begin with a digit");
  if (rest.starts_with('.')) {
    rest.remove_prefix(1);
    fraction_digits = take_digits(rest);
    if (fraction_digits.empty()) return bad("no digit after the point");
    if (fraction_digits.size() > 6) return bad("more than six digits after the point");
  }
  if (rest.starts_with(' ')) rest.remove_prefix(1);
  std::string unit_name;
  for (const char c : rest.substr(0, rest.ends_with("/s") ? rest.size() - 2 : rest.size())) {
    unit_name += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  const Unit* unit = nullptr;
  for (const Unit& candidate : kUnits) {
    if (candidate.name == unit_name) unit = &candidate;
  }
  if (unit == nullptr) return bad("unknown unit");
  uint64_t whole = 0;
  uint64_t fraction = 0;
  if (!to_number(whole_digits, whole) || __builtin_mul_overflow(whole, unit->bytes, &whole)) {
    return bad("too large");
  }
  if (!to_number(fraction_digits, fraction)) return bad("too large");
  uint64_t scale = 1;
  for (size_t i = 0; i < fraction_digits.size(); ++i)
    scale *= 10;
  // At most 10^6 x 2^40: fits.
  if (__builtin_add_overflow(whole, fraction * unit->bytes / scale, &whole)) {
    return bad("too large");
  }
  return whole;
}

}  // namespace superlifter::client
