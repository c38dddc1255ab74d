// Frames: the twelve-byte header of PROTOCOL.md section 1 and a deframer that takes bytes as they
// come.
#pragma once

#include <cstdint>
#include <optional>

#include "core/base/bytes.h"
#include "core/base/limits.h"
#include "core/base/result.h"
#include "core/wire/message.h"

namespace superlifter::wire {

struct FrameHeader {
  uint32_t length_bytes = 0;
  Type type = Type::kHello;
  uint8_t flags = 0;
  uint32_t request = 0;
};

// Appends the header to `out`.
void encode_frame_header(const FrameHeader& header, Bytes& out);

// kProtocol for an unknown type, reserved bits, or a payload above `most_bytes`.
// REQUIRES: exactly kFrameHeaderBytes.
[[nodiscard]] Result<FrameHeader> decode_frame_header(ByteView bytes, size_t most_bytes);

// A frame whose payload borrows from the bytes fed (or from the deframer's buffer): it is valid
// until the next call. Of DATA, when streamed, a piece of the payload; the last one has ends_frame.
struct Frame {
  FrameHeader header;
  ByteView payload;
  bool ends_frame = true;
};

// Cuts a byte stream into frames. A frame that lies whole in the bytes fed is handed out without a
// copy.
//
//   deframer.feed(bytes);
//   while (true) {
//     Result<std::optional<Frame>> frame = deframer.next();
//     if (!frame || !*frame) break;   // broken, or more bytes are needed
//     ...
//   }
//
// Memory: one frame of at most `most_bytes` and its header.
class Deframer {
 public:
  explicit Deframer(size_t most_payload_bytes) : most_bytes_(most_payload_bytes) {}

  // Changes the bound, after the hello.
  void set_most_payload_bytes(size_t bytes) { most_bytes_ = bytes; }

  // Hands DATA payloads out in pieces as they come, never copied and never held back until the
  // frame is whole: what a receiver of large files wants. Each piece borrows from the bytes fed.
  void stream_data() { streams_data_ = true; }

  // Takes the next bytes of the stream. REQUIRES: next() has returned nothing since the last feed;
  // the bytes live until it does so again.
  void feed(ByteView bytes) { input_ = bytes; }

  // The next whole frame, nothing when more bytes are needed, or kProtocol (sticks).
  [[nodiscard]] Result<std::optional<Frame>> next();

  // Whether the stream ended between two frames.
  bool at_border() const { return held_.empty() && input_.empty() && streaming_left_ == 0; }

 private:
  Frame stream_piece();

  size_t most_bytes_;
  ByteView input_;          // Fed and not yet handed out.
  Bytes held_;              // The front of a frame that came in pieces.
  bool hand_back_ = false;  // held_ was handed out as a frame and is to be cleared.
  bool streams_data_ = false;
  FrameHeader streaming_;        // Of the DATA frame that is being handed out.
  uint32_t streaming_left_ = 0;  // Bytes of it still to come.
  std::optional<Error> failure_;
};

}  // namespace superlifter::wire
