// Packing: replies to a READ as zstd frames (PACKED in PROTOCOL.md).
//
//   Packer       one a worker: the compressor and its memory, lent to all sessions
//   PackedRun    one a READ: the frames on their way to the outbox
//
//   add(frame) ──▶ held ──kPackBytes, or flush()──▶ compressed, 1/128 saved or more ──▶ PACKED
//      │                                              └── less ──▶ as they are; then nothing is
//      └───── nothing is tried, or not allowed ──────▶ outbox          tried for a while
//
// After a pack that did not get smaller, bytes go by untried: as many as one pack, and twice as
// many after each further failure, up to kMostPlainBytes. Then 64 KiB are tried. So content that
// does not compress costs a sixty-fourth of what compressing all of it would, and it can leave as
// file ranges.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/base/bytes.h"
#include "core/base/limits.h"
#include "core/base/outbox.h"
#include "core/wire/message.h"

struct ZSTD_CCtx_s;

namespace superlifter::session {

// Frames of one pack.
constexpr size_t kPackBytes = 256 << 10;
// Tried where the pack before did not get smaller.
constexpr size_t kProbeBytes = 64 << 10;
constexpr uint64_t kMostPlainBytes = 4 << 20;
// A pack ends with the frame that makes it long enough.
static_assert(kPackBytes + kSmallFileBytes + 2 * kFrameHeaderBytes <= kMaxPackedBytes);

// Keeps some 2 MiB once it was used.
class Packer {
 public:
  Packer();
  ~Packer();
  Packer(const Packer&) = delete;
  Packer& operator=(const Packer&) = delete;

  // One zstd frame that holds the bytes and states their number, or nothing when it would not be at
  // least 1/128 shorter, framing included. Valid until the next call.
  // REQUIRES: at most kMaxPackedBytes.
  ByteView pack(ByteView bytes);

 private:
  struct Free {
    void operator()(ZSTD_CCtx_s* context) const;
  };
  std::unique_ptr<ZSTD_CCtx_s, Free> context_;  // Made when it is first needed.
  Bytes out_;
};

class PackedRun {
 public:
  // Null: nothing is packed. Borrowed.
  PackedRun(uint32_t request, Packer* packer) : request_(request), packer_(packer) {}

  // A frame of the reply. REQUIRES: at most kSmallFileBytes.
  void add(wire::Type type, uint8_t flags, Bytes payload, Outbox& outbox);
  void add_status(wire::ItemStatus item, Outbox& outbox);
  // The same with the file's bytes, which cannot be packed: what is held goes first.
  void add_range(wire::Type type, uint8_t flags, FileRange payload, Outbox& outbox);
  // Lets go of what is held.
  void flush(Outbox& outbox);

  // How many bytes of content it makes sense to read into memory for packing; 0: none now, because
  // nothing is tried for the next plain_bytes().
  size_t appetite_bytes() const;
  uint64_t plain_bytes() const { return packer_ == nullptr ? UINT64_MAX : plain_left_; }
  // Other content begins: it may compress where the one before did not.
  void try_again() { plain_left_ = 0; }

 private:
  size_t target_bytes() const { return plain_run_ == 0 ? kPackBytes : kProbeBytes; }
  void went_plain(uint64_t bytes) { plain_left_ -= bytes < plain_left_ ? bytes : plain_left_; }

  uint32_t request_;
  Packer* packer_;
  Bytes held_;               // Whole frames; empty while plain_left_ is not 0.
  uint64_t plain_left_ = 0;  // To go by untried.
  uint64_t plain_run_ = 0;   // How many that was last time; 0: the last pack got smaller.
};

}  // namespace superlifter::session
