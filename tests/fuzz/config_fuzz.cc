// A configuration file: loaded, or refused with errors that name a place.
#include "config/loader.h"
#include "core/base/bytes.h"
#include "core/base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto loaded = superlifter::config::load_text(superlifter::as_text({data, size}), "f",
                                                     superlifter::config::CheckPaths::kNo);
  for (const std::string& error : loaded.errors) {
    CHECK(error.starts_with("f"));
  }
  return 0;
}
