// Outbox: the ordered output of a session, as bytes or as ranges of files.
//
// The session fills it and never waits; a sender drains it and never looks inside. Positions count
// every byte ever put in, so that the session can tell when a given byte has left. Bounded by its
// filler, which stops above kOutboxHighWaterBytes of payload.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <utility>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/base/file_request.h"

namespace superlifter {

// [offset, offset + length_bytes) of an open file.
struct FileRange {
  std::shared_ptr<OpenFile> file;
  uint64_t offset = 0;
  uint64_t length_bytes = 0;
};

// One piece of output: `bytes` from `sent` on when there is no file, else the range.
struct OutItem {
  Bytes bytes;
  size_t sent = 0;  // Bytes of `bytes` that have left.
  FileRange range;  // range.file set: this item is a file range; it shrinks as it leaves.

  bool is_range() const { return range.file != nullptr; }
  uint64_t size_bytes() const { return is_range() ? range.length_bytes : bytes.size() - sent; }
};

class Outbox {
 public:
  // Appends; empty pieces are dropped.
  void push(Bytes bytes) {
    if (bytes.empty()) return;
    pushed_ += bytes.size();
    items_.push_back({.bytes = std::move(bytes), .sent = 0, .range = {}});
  }
  void push(FileRange range) {
    if (range.length_bytes == 0) return;
    pushed_ += range.length_bytes;
    items_.push_back({.bytes = {}, .sent = 0, .range = std::move(range)});
  }

  bool empty() const { return items_.empty(); }
  const std::deque<OutItem>& items() const { return items_; }
  // Bytes that wait.
  uint64_t queued_bytes() const { return pushed_ - left_; }
  // Position after the last byte put in, and after the last byte that left.
  uint64_t pushed_position() const { return pushed_; }
  uint64_t left_position() const { return left_; }

  // The sender reports that the first `count` waiting bytes have left. REQUIRES: count <= queued.
  void consume(uint64_t count) {
    CHECK(count <= queued_bytes());
    left_ += count;
    while (count > 0) {
      OutItem& item = items_.front();
      const uint64_t part = count < item.size_bytes() ? count : item.size_bytes();
      if (item.is_range()) {
        item.range.offset += part;
        item.range.length_bytes -= part;
      } else {
        item.sent += static_cast<size_t>(part);
      }
      count -= part;
      if (item.size_bytes() == 0) items_.pop_front();
    }
  }

 private:
  std::deque<OutItem> items_;  // No item is empty.
  uint64_t pushed_ = 0;
  uint64_t left_ = 0;
};

}  // namespace superlifter
