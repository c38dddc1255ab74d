// Clock: the seam through which time reaches code that tests want to drive by hand.
#pragma once

#include <time.h>

#include <cstdint>

namespace superlifter {

class Clock {
 public:
  virtual ~Clock() = default;
  // Milliseconds that never go back; the zero point means nothing.
  virtual uint64_t monotonic_ms() = 0;
  // Nanoseconds since 1970-01-01 UTC.
  virtual int64_t wall_ns() = 0;
};

// The kernel's clocks.
class SystemClock final : public Clock {
 public:
  uint64_t monotonic_ms() override {
    return static_cast<uint64_t>(nanoseconds(CLOCK_MONOTONIC)) / 1'000'000;
  }
  int64_t wall_ns() override { return nanoseconds(CLOCK_REALTIME); }

 private:
  static int64_t nanoseconds(clockid_t id) {
    timespec now{};
    static_cast<void>(clock_gettime(id, &now));  // Cannot fail for these clocks.
    return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
  }
};

}  // namespace superlifter
