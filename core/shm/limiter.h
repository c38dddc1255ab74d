// Limiter: who may connect, counted over all workers.
//
// There are no counters. A connection owns a row of the segment, and every limit is a count of
// rows, made when somebody wants in. So nothing can leak or drift: when a worker is killed, the
// master frees the rows that carry its index and all counts are right again.
//
//   admit:   claim a free row, write the address ──▶ tentative ──▶ count rows ──▶ within: live
//                                                                         └──▶ beyond: give it back
//
// Each is tentative before it counts, so of two that want the last place at least one sees the
// other: a limit is never exceeded. Both may see each other and step back; they try again a few
// times.
//
// Cost of admit: a pass over the rows that were ever in use (4,096 rows: about 10 microseconds).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "core/base/result.h"
#include "core/shm/segment.h"

namespace superlifter::shm {

struct Limits {
  uint32_t connections = 0;              // At most the segment's rows; 0: all of them.
  uint32_t connections_per_address = 0;  // IPv4: the address, IPv6: its /64. 0: no such limit.
};

// Owns one row; gives it back when destroyed.
class Admission {
 public:
  Admission() = default;
  explicit Admission(ConnectionRow& row) : row_(&row) {}
  Admission(Admission&& other) noexcept;
  Admission& operator=(Admission&& other) noexcept;
  Admission(const Admission&) = delete;
  Admission& operator=(const Admission&) = delete;
  ~Admission() { release(); }

  bool valid() const { return row_ != nullptr; }
  // REQUIRES: valid().
  ConnectionRow& row() const { return *row_; }
  void release();

 private:
  ConnectionRow* row_ = nullptr;  // Owned, or null.
};

class Limiter {
 public:
  // Borrows the segment.
  Limiter(const Segment& segment, Limits limits) : segment_(segment), limits_(limits) {}

  // A live row for a connection from `address` (16 bytes, IPv4 as ::ffff:a.b.c.d). kBusy names the
  // limit that was reached.
  [[nodiscard]] Result<Admission> admit(const std::array<uint8_t, 16>& address,
                                        uint32_t worker) const;

  // Makes `row` one of the module's, unless `most` others are already (0: no limit). kBusy; the row
  // then keeps the module it had.
  [[nodiscard]] Status enter_module(ConnectionRow& row, std::string_view module,
                                    uint32_t most) const;

  // Frees every row of a worker. Called by the master once that worker's process has ended. Returns
  // how many there were.
  uint32_t free_worker(uint32_t worker) const;

  // Rows in use, by everybody.
  uint32_t count() const;

 private:
  enum class Verdict { kAdmitted, kRefused, kCrowded };
  Verdict judge(const ConnectionRow& own) const;

  const Segment& segment_;
  Limits limits_;
};

}  // namespace superlifter::shm
