#include "core/fs/mapped_file.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>

namespace superlifter::fs {
namespace {

void unmap(ByteView bytes) {
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-const-cast): munmap takes what mmap gave.
  if (!bytes.empty()) ::munmap(const_cast<uint8_t*>(bytes.data()), bytes.size());
}

}  // namespace

Result<MappedFile> MappedFile::map(int fd) {
  struct stat stat{};
  if (::fstat(fd, &stat) != 0) return fail_errno(errno, "stat a file to map");
  if (!S_ISREG(stat.st_mode)) return fail(Errc::kCorrupt, "map: not a regular file");
  MappedFile out;
  if (stat.st_size == 0) return out;
  const auto size = static_cast<size_t>(stat.st_size);
  void* const at = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) return fail_errno(errno, "map " + std::to_string(size) + " bytes");
  out.bytes_ = {static_cast<const uint8_t*>(at), size};
  return out;
}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this != &other) {
    unmap(bytes_);
    bytes_ = std::exchange(other.bytes_, {});
  }
  return *this;
}

MappedFile::~MappedFile() {
  unmap(bytes_);
}

void MappedFile::release_pages() const {
  if (bytes_.empty()) return;
  // The pages are clean and the map is read-only: nothing is lost, and a refusal costs memory only.
  static_cast<void>(madvise(const_cast<uint8_t*>(bytes_.data()), bytes_.size(), MADV_DONTNEED));
}

}  // namespace superlifter::fs
