// Plan: how a target file is rebuilt: ranges to copy from the basis, and between them the literals,
// which must be fetched.
//
//   target   ├──copy──┤lit├────copy────┤──────lit──────├─copy─┤lit┤
//   basis         ╲________╲____ any order, any overlap
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/check.h"

namespace superlifter::delta {

// [offset, offset + length_bytes) of a file.
struct Range {
  uint64_t offset = 0;
  uint64_t length_bytes = 0;

  uint64_t end() const { return offset + length_bytes; }
  friend bool operator==(const Range&, const Range&) = default;
};

// A range of the target whose bytes stand in the basis.
struct Copy {
  uint64_t target_offset = 0;
  uint64_t basis_offset = 0;
  uint64_t length_bytes = 0;

  uint64_t target_end() const { return target_offset + length_bytes; }
  uint64_t basis_end() const { return basis_offset + length_bytes; }
  friend bool operator==(const Copy&, const Copy&) = default;
};

struct Plan {
  uint64_t target_bytes = 0;
  std::vector<Copy> copies;  // Ascending by target_offset, none empty, none overlaps the next.

  uint64_t copied_bytes() const {
    uint64_t sum = 0;
    for (const Copy& copy : copies)
      sum += copy.length_bytes;
    return sum;
  }

  // What no copy covers, ascending.
  std::vector<Range> literals() const {
    std::vector<Range> out;
    uint64_t at = 0;
    for (const Copy& copy : copies) {
      CHECK(copy.target_offset >= at);
      if (copy.target_offset > at) out.push_back({at, copy.target_offset - at});
      at = copy.target_end();
    }
    if (at < target_bytes) out.push_back({at, target_bytes - at});
    return out;
  }
};

}  // namespace superlifter::delta
