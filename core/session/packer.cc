// See packer.h.
#include "core/session/packer.h"

#include <zstd.h>

#include <algorithm>
#include <utility>

#include "core/base/check.h"
#include "core/session/answer.h"
#include "core/wire/codec.h"
#include "core/wire/frame.h"

namespace superlifter::session {
namespace {

// The literals of an update of the Linux tree, 7.5 MB in 13,800 frames, in packs of 256 KiB: level
// 1 makes 2.49 MB of them in 20 ms, 3 makes 2.26 MB in 30 ms, 5 makes 2.13 MB in 51 ms. Packs of 64
// KiB are 6 % larger, those of 512 KiB 2 % smaller.
constexpr int kPackLevel = 3;
// What must be saved: little, since literals of noise are worth it too (an image's update, 22 MB,
// gets 2 % smaller for 20 ms), and what is compressed already saves nothing at all.
constexpr size_t kLeastSavedPart = 128;
// Frames that could save less than their own framing.
constexpr size_t kLeastPackBytes = 64;
// A shorter pack that does not get smaller says nothing about what comes.
constexpr size_t kLeastTellingBytes = 32 << 10;

}  // namespace

Packer::Packer() = default;
Packer::~Packer() = default;

void Packer::Free::operator()(ZSTD_CCtx_s* context) const {
  ZSTD_freeCCtx(context);
}

ByteView Packer::pack(ByteView bytes) {
  CHECK(bytes.size() <= kMaxPackedBytes);
  if (bytes.size() < kLeastPackBytes) return {};
  if (context_ == nullptr) {
    context_.reset(ZSTD_createCCtx());
    if (context_ == nullptr) return {};
    out_.resize(kMaxPackedBytes);
  }
  // Where there is no room for more the compressor gives up by itself.
  const size_t most = bytes.size() - bytes.size() / kLeastSavedPart - kFrameHeaderBytes;
  const size_t size =
      ZSTD_compressCCtx(context_.get(), out_.data(), most, bytes.data(), bytes.size(), kPackLevel);
  if (ZSTD_isError(size) != 0) return {};
  return ByteView(out_).first(size);
}

void PackedRun::add(wire::Type type, uint8_t flags, Bytes payload, Outbox& outbox) {
  if (packer_ == nullptr || plain_left_ > 0) {
    went_plain(payload.size());
    return push_frame(type, flags, request_, std::move(payload), outbox);
  }
  wire::encode_frame_header({.length_bytes = static_cast<uint32_t>(payload.size()),
                             .type = type,
                             .flags = flags,
                             .request = request_},
                            held_);
  held_.insert(held_.end(), payload.begin(), payload.end());
  if (held_.size() >= target_bytes()) flush(outbox);
}

void PackedRun::add_status(wire::ItemStatus item, Outbox& outbox) {
  const bool plain = packer_ == nullptr || plain_left_ > 0;
  Bytes frame;
  wire::encode(item, request_, plain ? frame : held_);
  outbox.push(std::move(frame));
  if (held_.size() >= target_bytes()) flush(outbox);
}

void PackedRun::add_range(wire::Type type, uint8_t flags, FileRange payload, Outbox& outbox) {
  flush(outbox);
  went_plain(payload.length_bytes);
  Bytes header;
  wire::encode_frame_header({.length_bytes = static_cast<uint32_t>(payload.length_bytes),
                             .type = type,
                             .flags = flags,
                             .request = request_},
                            header);
  outbox.push(std::move(header));
  outbox.push(std::move(payload));
}

void PackedRun::flush(Outbox& outbox) {
  if (held_.empty()) return;
  CHECK(packer_ != nullptr);
  const ByteView packed = packer_->pack(held_);
  if (!packed.empty()) {
    plain_run_ = 0;
    held_.clear();
    return push_frame(wire::Type::kPacked, 0, request_, Bytes(packed.begin(), packed.end()),
                      outbox);
  }
  if (held_.size() >= kLeastTellingBytes) {
    plain_run_ = std::clamp<uint64_t>(2 * plain_run_, kPackBytes, kMostPlainBytes);
    plain_left_ = plain_run_;
  }
  outbox.push(std::exchange(held_, {}));
}

size_t PackedRun::appetite_bytes() const {
  return packer_ == nullptr || plain_left_ > 0 ? 0 : target_bytes();
}

}  // namespace superlifter::session
