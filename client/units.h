// Numbers as people write and read them: sizes in powers of 1,024, times as 1:23, digits in groups.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/base/result.h"

namespace superlifter::client {

// "0 B", "1023 B", "1.00 KiB", "12.3 MiB", "456 GiB": three digits, never rounded up to 1024 of a
// unit.
std::string human_bytes(uint64_t size_bytes);

// "0:00", "1:23", "12:34:56", "3d 04:05:06" for seconds.
std::string human_duration(uint64_t seconds);

// "1,234,567".
std::string human_count(uint64_t count);

// A number of bytes, or bytes per second: digits with an optional fraction, then nothing or B, KiB,
// MiB, GiB, TiB (K, M, G, T for short) or the decimal kB, MB, GB, TB; units in either case except
// that "kB" and "KB" are both 1,000. "/s" may follow. kConfig names the text and what was expected.
[[nodiscard]] Result<uint64_t> parse_bytes(std::string_view text);

}  // namespace superlifter::client
