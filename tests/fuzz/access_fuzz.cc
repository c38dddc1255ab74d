// Address prefixes from a configuration: parsed or refused, and printed back to the same address.
#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/session/access.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace superlifter;  // NOLINT(google-build-using-namespace)
  const auto prefix = session::parse_prefix(as_text({data, size}));
  if (!prefix) return 0;
  const auto again = session::parse_address(session::to_text(prefix->address));
  CHECK(again && *again == prefix->address);
  CHECK(prefix->contains(prefix->address));
  return 0;
}
