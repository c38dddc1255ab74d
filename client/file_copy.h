// FileCopy: moves and checks file content on this host: ranges from one file to another, ranges
// within one file, digests of ranges.
//
// What a copy costs (1 GiB in the page cache, 2 cores, Linux 6.18, one thread; GB/s):
//
//              copy_file_range   the same, offsets not   pread + pwrite   both with two threads
//              aligned alike     aligned alike                            into one file
//   tmpfs      3.2               3.3                     2.9              0.7 and 2.3
//   ext4       2.2 to 3.9        2.6                     3.3 to 3.7       1.7 and 3.1
//   runs of 4 KiB: 2.0 to 2.4 both ways
//
// So a file's content is copied by one thread (writes take the inode's lock anyway), and
// copy_file_range is used for what it is good at: long runs at offsets that stand alike to the
// block, which file systems with reflinks share instead of copying, and network file systems copy
// at the server. It is only ever an attempt: whatever it refuses is copied by hand, so that reading
// and writing failures can be told apart.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <vector>

#include "core/base/bytes.h"
#include "core/base/result.h"
#include "core/hash/digest.h"

namespace superlifter::client {

// Where bytes are copied from and to, in two files or in one.
struct CopyRange {
  uint64_t from = 0;
  uint64_t to = 0;
  uint64_t length_bytes = 0;
};

// What all these calls fail with: kStale: the source cannot be read, or ends before the range does;
// kClosed: `stop` became true (looked at every 16 MiB at least); kIo with errno: the destination
// cannot be written.
//
// For one thread; keeps a buffer of 256 KiB once it is needed.
class FileCopy {
 public:
  using CopyFileRange = ssize_t (*)(int, loff_t*, int, loff_t*, size_t, unsigned);

  // `stop` is borrowed. `copy_file_range` is the system's; a test may bring another. Null: not
  // used.
  explicit FileCopy(const std::atomic<bool>& stop, CopyFileRange copy_file_range = system_call());

  // Copies between two files, or within one where the ranges do not overlap.
  [[nodiscard]] Status copy(int from_fd, int to_fd, const CopyRange& range);
  // Copies within one file; the ranges may overlap (memmove).
  [[nodiscard]] Status move(int fd, const CopyRange& range);
  // Makes an empty file share all content of another (a reflink). False where that is not possible:
  // then nothing was written.
  bool clone(int from_fd, int to_fd);
  // Copies the first length_bytes between two files and hashes them on the way.
  [[nodiscard]] Status copy_hashed(int from_fd, int to_fd, uint64_t length_bytes,
                                   hash::Xxh128Hasher& hasher);
  // Adds [offset, offset + length_bytes) to the hasher.
  [[nodiscard]] Status hash(int fd, uint64_t offset, uint64_t length_bytes,
                            hash::Xxh128Hasher& hasher);

  static CopyFileRange system_call();

 private:
  Status copy_by_hand(int from_fd, int to_fd, CopyRange range,
                      hash::Xxh128Hasher* hasher = nullptr);
  uint64_t copy_in_kernel(int from_fd, int to_fd, const CopyRange& range);
  MutableBytes buffer(uint64_t most_bytes);

  const std::atomic<bool>& stop_;
  const CopyFileRange copy_file_range_;
  bool may_copy_in_kernel_;
  bool may_clone_ = true;
  std::vector<uint8_t> buffer_;
};

// Writes all of `bytes` at `offset`. kIo with errno.
[[nodiscard]] Status write_at(int fd, uint64_t offset, ByteView bytes);

}  // namespace superlifter::client
