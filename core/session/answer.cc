// See answer.h.
#include "core/session/answer.h"

#include <utility>

#include "core/base/check.h"
#include "core/base/limits.h"
#include "core/wire/codec.h"
#include "core/wire/frame.h"

namespace superlifter::session {

using wire::Code;

Code to_code(const Error& error) {
  switch (error.code) {
    case Errc::kNotFound:
      return Code::kNotFound;
    case Errc::kDenied:
      return Code::kDenied;
    case Errc::kBusy:
      return Code::kBusy;
    case Errc::kStale:
      return Code::kStale;
    case Errc::kGone:
      return Code::kNotReady;
    default:
      return Code::kInternal;
  }
}

void push_frame(wire::Type type, uint8_t flags, uint32_t request, Bytes payload, Outbox& outbox) {
  CHECK(payload.size() <= kMaxReplyPayload);
  Bytes header;
  wire::encode_frame_header({.length_bytes = static_cast<uint32_t>(payload.size()),
                             .type = type,
                             .flags = flags,
                             .request = request},
                            header);
  outbox.push(std::move(header));
  outbox.push(std::move(payload));
}

void push_error(Code code, uint64_t argument, uint32_t request, Outbox& outbox) {
  Bytes bytes;
  wire::encode(wire::ErrorReply{.code = code, .argument = argument}, request, bytes);
  outbox.push(std::move(bytes));
}

}  // namespace superlifter::session
