// ManualClock: time that moves when a test says so.
#pragma once

#include <cstdint>

#include "core/base/clock.h"

namespace superlifter::tests {

class ManualClock final : public Clock {
 public:
  uint64_t monotonic_ms() override { return now_ms_; }
  int64_t wall_ns() override { return static_cast<int64_t>(now_ms_) * 1'000'000; }

  void advance_ms(uint64_t by_ms) { now_ms_ += by_ms; }

 private:
  uint64_t now_ms_ = 1'000'000;
};

}  // namespace superlifter::tests
