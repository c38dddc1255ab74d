// A byte stream in pieces: the frames that come out do not depend on where it was cut.
#include <algorithm>
#include <string>

#include "core/base/check.h"
#include "core/wire/frame.h"

namespace {

std::string deframe(superlifter::ByteView bytes, size_t step, bool stream) {
  superlifter::wire::Deframer deframer(4096);
  if (stream) deframer.stream_data();
  std::string out;
  while (!bytes.empty()) {
    const size_t part = std::min(step, bytes.size());
    deframer.feed(bytes.first(part));
    bytes = bytes.subspan(part);
    while (true) {
      const auto frame = deframer.next();
      if (!frame) return out + "!";
      if (!*frame) break;
      out += superlifter::as_text((*frame)->payload);
      if ((*frame)->ends_frame) out += '|';
    }
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const superlifter::ByteView bytes(data + 1, size - 1);
  const size_t step = 1 + data[0] % 32;
  CHECK(deframe(bytes, step, false) == deframe(bytes, size, false));
  CHECK(deframe(bytes, step, true) == deframe(bytes, size, true));
  return 0;
}
