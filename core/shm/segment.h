// Segment: the memory that all processes of one daemon share. The master makes it (a memfd, sealed
// in its size) and hands the fd to each worker, which maps it.
//
// Nothing in it but atomics, and no pointer: a header that says which layout this is, then one row
// per connection. The rows are the truth; every count is derived from them, so that a killed
// worker's share can be given back exactly (limiter.h). A reader that meets another layout refuses
// it.
//
//   [ SegmentHeader, padded to kRowBytes ][ ConnectionRow 0 ][ ConnectionRow 1 ] … [ row_count - 1
//   ]
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/base/result.h"
#include "core/base/unique_fd.h"

namespace superlifter::shm {

// Of the structs below; to be raised with every change of theirs.
constexpr uint32_t kLayoutVersion = 1;
constexpr uint32_t kMaxRows = 1'000'000;  // 128 MB; the configuration's own bound is lower.
constexpr size_t kRowBytes = 128;         // Two cache lines: rows of two workers never share one.

enum class RowState : uint8_t {
  kFree = 0,
  kFilling = 1,    // Claimed; its address is being written.
  kTentative = 2,  // Not yet found to be within the limits.
  kLive = 3,
};

// `claim` holds the state in its low 8 bits and the worker's index above: one exchange tells both,
// so no instant exists at which a dead worker's row has no owner.
struct alignas(kRowBytes) ConnectionRow {
  std::atomic<uint32_t> claim;         // Publishes the address; see limiter.cc for its order.
  std::atomic<int32_t> pid;            // For the status page; relaxed, as everything below.
  std::atomic<uint64_t> address_high;  // Big-endian halves of the 16 bytes; read by the limiter.
  std::atomic<uint64_t> address_low;
  std::atomic<uint64_t>
      module_hash;  // 0: none yet. Sequentially consistent: counted by the limiter.
  std::atomic<uint64_t> bytes_sent;
  std::atomic<uint64_t> bytes_received;
  std::atomic<int64_t> started_ms;                   // Wall clock.
  std::array<std::atomic<uint64_t>, 4> module_text;  // The name, cut at 32 bytes, NUL-padded.
};
static_assert(sizeof(ConnectionRow) == kRowBytes);
static_assert(std::atomic<uint64_t>::is_always_lock_free);
static_assert(std::atomic<uint32_t>::is_always_lock_free);

struct alignas(kRowBytes) SegmentHeader {
  uint64_t magic = 0;
  uint32_t layout_version = 0;
  uint32_t row_count = 0;
  uint64_t row_bytes = 0;
  std::atomic<uint32_t> rows_used;  // One more than the highest row ever claimed; never shrinks.
};
static_assert(sizeof(SegmentHeader) == kRowBytes);

class Segment {
 public:
  // Makes a segment with free rows. kIo. Called by the master, and by a process that serves alone.
  // REQUIRES: 1 <= row_count <= kMaxRows.
  [[nodiscard]] static Result<Segment> create(uint32_t row_count);
  // Maps one that was inherited and takes its fd over. kCorrupt for what is no segment,
  // kUnsupported for another layout (names both versions).
  [[nodiscard]] static Result<Segment> attach(UniqueFd fd);

  Segment(Segment&& other) noexcept;
  Segment& operator=(Segment&& other) noexcept;
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;
  ~Segment();

  int fd() const { return fd_.get(); }
  SegmentHeader& header() const { return *header_; }
  // Shared, and so not const, whoever holds the segment.
  std::span<ConnectionRow> rows() const { return rows_; }

 private:
  Segment() = default;
  [[nodiscard]] static Result<Segment> map(UniqueFd fd, size_t size_bytes);
  void unmap();

  UniqueFd fd_;
  SegmentHeader* header_ = nullptr;  // Start of the map, or null.
  size_t size_bytes_ = 0;
  std::span<ConnectionRow> rows_;
};

// A row as plain data, for the log and the status page. Taken without a lock: fields of a row that
// changes hands meanwhile may belong to both.
struct RowSnapshot {
  uint32_t worker = 0;
  int32_t pid = 0;
  std::array<uint8_t, 16> address{};
  std::string module;  // At most 32 bytes.
  uint64_t bytes_sent = 0;
  uint64_t bytes_received = 0;
  int64_t started_ms = 0;
};
RowSnapshot snapshot(const ConnectionRow& row);

// The module's name in a row; both forms.
void set_module(ConnectionRow& row, std::string_view name);
uint64_t module_hash(std::string_view name);  // Never 0 for a name that is not empty.

}  // namespace superlifter::shm
