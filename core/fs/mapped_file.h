// MappedFile: a whole file of our own making (a generation), mapped read-only. Never used for
// served files: those can be truncated under the map.
#pragma once

#include <utility>

#include "core/base/bytes.h"
#include "core/base/result.h"
#include "core/base/unique_fd.h"

namespace superlifter::fs {

class MappedFile {
 public:
  MappedFile() = default;
  // Maps [0, size) of an open file; the fd may be closed afterwards. An empty file maps to nothing.
  [[nodiscard]] static Result<MappedFile> map(int fd);

  MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  // Lives as long as this object.
  ByteView bytes() const { return bytes_; }

  // Takes the pages that were touched out of this process's memory; they come back from the page
  // cache when they are touched again. For a pass over a large file that is over.
  void release_pages() const;

 private:
  ByteView bytes_;
};

}  // namespace superlifter::fs
