// Sender: drains the front of an Outbox into an out-fd. How a piece leaves is chosen here and
// nowhere else: bytes by one gathering write, file ranges by sendfile(2), which takes them from the
// page cache without a copy through this process, and by pread and write where sendfile is refused.
//
//   loop:  gather(outbox) ──▶ no range among them: send_pieces at once
//                         └─▶ a range: send_pieces in the pool (a cold page blocks), the loop goes
//                         on
//          outbox.consume(sent.count)
//
// The pieces of one gathering borrow from the outbox, which must not be consumed until they were
// sent; pushing at its other end is fine.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/bytes.h"
#include "core/base/outbox.h"

namespace superlifter::io {

// A socket takes flags with a write (no SIGPIPE, more to come); nothing else does.
enum class FdKind : uint8_t { kSocket, kOther };
FdKind kind_of(int fd);

// Bytes, or a range when range.file is set.
struct Piece {
  ByteView bytes;
  FileRange range;

  bool is_range() const { return range.file != nullptr; }
};

constexpr size_t kGatherPieces = 128;    // Below IOV_MAX (1,024); a small file is two.
constexpr uint64_t kGatherBytes = kMiB;  // A turn of one stream when it sends only bytes.
constexpr uint64_t kGatherRangeBytes =
    4 * kMiB;  // One hand-over to the pool; tcp_wmem's usual most.

// Puts pieces from the front of the outbox into `pieces`, at most kGatherPieces and the byte bound
// that applies; the last range may be a part of its item. Returns whether a range is among them.
bool gather(const Outbox& outbox, std::vector<Piece>& pieces);

struct Sent {
  uint64_t count = 0;        // Bytes that left, in order.
  bool would_block = false;  // The fd takes no more now.
  int sys_errno = 0;         // The stream broke.
};

// Sends the pieces in order until all are gone, the non-blocking fd takes no more, or it breaks. A
// range whose file ends early (or cannot be read) is filled with zeros and its OpenFile marked as
// shrunk. Any thread. REQUIRES: SIGPIPE is ignored (sendfile has no flag for it).
Sent send_pieces(int fd, FdKind kind, std::span<const Piece> pieces);

}  // namespace superlifter::io
