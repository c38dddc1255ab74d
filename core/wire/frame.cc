#include "core/wire/frame.h"

#include <algorithm>
#include <string>

#include "core/base/check.h"
#include "core/base/coding.h"

namespace superlifter::wire {
namespace {

constexpr uint8_t kFirstType = static_cast<uint8_t>(Type::kHello);
constexpr uint8_t kLastType = static_cast<uint8_t>(Type::kPacked);

uint8_t allowed_flags(Type type) {
  switch (type) {
    case Type::kModuleList:
    case Type::kNodes:
    case Type::kDigestList:
    case Type::kSums:
      return kLast;
    case Type::kRead:
      return kMayPack;
    case Type::kData:
      return kItemEnd | kItemOk;
    default:
      return 0;
  }
}

}  // namespace

void encode_frame_header(const FrameHeader& header, Bytes& out) {
  Writer writer(out);
  writer.u32(header.length_bytes);               // [frame-length]
  writer.u8(static_cast<uint8_t>(header.type));  // [frame-type]
  writer.u8(header.flags);                       // [frame-flags]
  writer.u16(0);                                 // [frame-reserved]
  writer.u32(header.request);                    // [frame-request]
}

Result<FrameHeader> decode_frame_header(ByteView bytes, size_t most_bytes) {
  CHECK(bytes.size() == kFrameHeaderBytes);
  Reader reader(bytes);
  FrameHeader header;
  header.length_bytes = reader.u32();      // [frame-length]
  const uint8_t type = reader.u8();        // [frame-type]
  header.flags = reader.u8();              // [frame-flags]
  const uint16_t reserved = reader.u16();  // [frame-reserved]
  header.request = reader.u32();           // [frame-request]
  if (type < kFirstType || type > kLastType) {
    return fail(Errc::kProtocol, "frame of unknown type " + std::to_string(type));
  }
  header.type = static_cast<Type>(type);
  if (reserved != 0 || (header.flags & ~allowed_flags(header.type)) != 0) {
    return fail(Errc::kProtocol, "frame with reserved bits set");
  }
  if (header.length_bytes > most_bytes) {
    return fail(Errc::kProtocol, "frame of " + std::to_string(header.length_bytes) +
                                     " bytes where at most " + std::to_string(most_bytes) +
                                     " are allowed");
  }
  return header;
}

Result<std::optional<Frame>> Deframer::next() {
  if (failure_) return std::unexpected(*failure_);
  if (hand_back_) {
    held_.clear();
    hand_back_ = false;
  }
  if (streaming_left_ > 0) {
    if (input_.empty()) return std::nullopt;
    return stream_piece();
  }
  const auto top_up = [this](size_t wanted) {
    const size_t part = std::min(wanted - held_.size(), input_.size());
    held_.insert(held_.end(), input_.begin(), input_.begin() + static_cast<ptrdiff_t>(part));
    input_ = input_.subspan(part);
    return held_.size() == wanted;
  };
  ByteView head;
  if (held_.empty() && input_.size() >= kFrameHeaderBytes) {
    head = input_.first(kFrameHeaderBytes);
  } else {
    if (held_.empty() && input_.empty()) return std::nullopt;
    if (held_.size() < kFrameHeaderBytes && !top_up(kFrameHeaderBytes)) return std::nullopt;
    head = ByteView(held_).first(kFrameHeaderBytes);
  }
  const Result<FrameHeader> header = decode_frame_header(head, most_bytes_);
  if (!header) {
    failure_ = header.error();
    return std::unexpected(header.error());
  }
  if (streams_data_ && header->type == Type::kData && header->length_bytes > 0) {
    if (held_.empty()) input_ = input_.subspan(kFrameHeaderBytes);
    held_.clear();
    streaming_ = *header;
    streaming_left_ = header->length_bytes;
    if (input_.empty()) return std::nullopt;
    return stream_piece();
  }
  const size_t whole = kFrameHeaderBytes + header->length_bytes;
  if (held_.empty() && input_.size() >= whole) {
    const ByteView payload = input_.subspan(kFrameHeaderBytes, header->length_bytes);
    input_ = input_.subspan(whole);
    return Frame{*header, payload};
  }
  if (!top_up(whole)) return std::nullopt;
  hand_back_ = true;
  return Frame{*header, ByteView(held_).subspan(kFrameHeaderBytes)};
}

Frame Deframer::stream_piece() {
  const size_t part = std::min<size_t>(streaming_left_, input_.size());
  const Frame piece{streaming_, input_.first(part), part == streaming_left_};
  input_ = input_.subspan(part);
  streaming_left_ -= static_cast<uint32_t>(part);
  return piece;
}

}  // namespace superlifter::wire
