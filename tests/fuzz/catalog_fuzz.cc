// A generation file: refused, or every look-up stays within it.
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "core/base/check.h"
#include "core/base/unique_fd.h"
#include "core/catalog/catalog.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace superlifter;  // NOLINT(google-build-using-namespace)
  static const std::string directory = [] {
    std::string path = "/tmp/superlifter-fuzz-XXXXXX";
    CHECK(mkdtemp(path.data()) != nullptr);
    return path;
  }();
  static const UniqueFd fd(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  UniqueFd file(openat(fd.get(), "1.generation", O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600));
  CHECK(write(file.get(), data, size) == static_cast<ssize_t>(size));
  file.reset();
  const auto catalog = catalog::Catalog::open(fd.get(), "1.generation", catalog::Verify::kHeader);
  if (!catalog) return 0;
  const tree::TableView& table = (*catalog)->table();
  for (uint32_t entry = 0; entry < table.count(); ++entry) {
    CHECK(table.path(entry).size() < (1U << 20));
    static_cast<void>((*catalog)->validators(entry));
    if (const auto place = (*catalog)->signature(entry); place) {
      const uint64_t room = (*catalog)->header().pack_bytes;
      CHECK(place->offset <= room && place->layout.size_bytes() <= room - place->offset);
    }
  }
  static_cast<void>((*catalog)->node({}));
  return 0;
}
