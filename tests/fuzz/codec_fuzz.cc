// Payloads of every message: the first byte says which decoder gets the rest.
#include "core/wire/codec.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace superlifter::wire;  // NOLINT(google-build-using-namespace)
  if (size == 0) return 0;
  const superlifter::ByteView payload(data + 1, size - 1);
  switch (data[0] % 12) {
    case 0:
      static_cast<void>(decode_client_hello(payload));
      break;
    case 1:
      static_cast<void>(decode_server_hello(payload));
      break;
    case 2:
      static_cast<void>(decode_busy(payload));
      break;
    case 3:
      static_cast<void>(decode_error(payload));
      break;
    case 4:
      static_cast<void>(decode_open(payload));
      break;
    case 5:
      static_cast<void>(decode_opened(payload));
      break;
    case 6:
      static_cast<void>(decode_tree(payload));
      break;
    case 7:
      // What is decoded can be encoded again.
      if (const auto digests = decode_digests(payload)) {
        superlifter::Bytes out;
        encode(*digests, 1, out);
      }
      break;
    case 8:
      if (const auto read = decode_read(payload, 0)) {
        superlifter::Bytes out;
        encode(*read, 1, out);
      }
      break;
    case 9:
      static_cast<void>(decode_item(payload));
      break;
    case 10:
      if (const auto signature = decode_signature(payload)) {
        superlifter::Bytes out;
        encode(*signature, 1, out);
      }
      break;
    default:
      static_cast<void>(decode_module_list(payload));
      break;
  }
  return 0;
}
