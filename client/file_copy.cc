#include "client/file_copy.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

namespace superlifter::client {
namespace {

constexpr size_t kBufferBytes = 256 << 10;     // Fits the L2 cache.
constexpr uint64_t kLeastRunBytes = 64 << 10;  // Shorter runs gain nothing from the kernel's copy.
constexpr uint64_t kBlockBytes = 4096;         // What file systems share.
constexpr uint64_t kSliceBytes = 16 << 20;     // Between two looks at stop_.

// One pread; how many bytes came: all of `room`, unless the file ends there. kStale.
Result<size_t> read_at(int fd, uint64_t offset, MutableBytes room) {
  size_t got = 0;
  while (got < room.size()) {
    const ssize_t count =
        pread(fd, room.data() + got, room.size() - got, static_cast<off_t>(offset + got));
    if (count < 0 && errno == EINTR) continue;
    // No errno: a local file that cannot be read is no failure of the destination.
    if (count < 0) return fail(Errc::kStale, std::string("read: ") + std::strerror(errno));
    if (count == 0) break;
    got += static_cast<size_t>(count);
  }
  return got;
}

// The same where all of it must be there.
Status read_all_at(int fd, uint64_t offset, MutableBytes room) {
  const Result<size_t> got = read_at(fd, offset, room);
  if (!got) return std::unexpected(got.error());
  if (*got < room.size()) return fail(Errc::kStale, "file is shorter than it was");
  return {};
}

std::unexpected<Error> interrupted() {
  return fail(Errc::kClosed, "interrupted");
}

}  // namespace

Status write_at(int fd, uint64_t offset, ByteView bytes) {
  while (!bytes.empty()) {
    const ssize_t count = pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0) {
      if (errno == EINTR) continue;
      return fail_errno(errno, "write");
    }
    offset += static_cast<uint64_t>(count);
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return {};
}

FileCopy::CopyFileRange FileCopy::system_call() {
  return ::copy_file_range;
}

FileCopy::FileCopy(const std::atomic<bool>& stop, CopyFileRange copy_file_range)
    : stop_(stop),
      copy_file_range_(copy_file_range),
      may_copy_in_kernel_(copy_file_range != nullptr) {}

MutableBytes FileCopy::buffer(uint64_t most_bytes) {
  if (buffer_.empty()) buffer_.resize(kBufferBytes);
  return MutableBytes(buffer_).first(std::min<uint64_t>(buffer_.size(), most_bytes));
}

Status FileCopy::copy(int from_fd, int to_fd, const CopyRange& range) {
  const bool is_alike = range.from % kBlockBytes == range.to % kBlockBytes;
  if (!may_copy_in_kernel_ || !is_alike || range.length_bytes < kLeastRunBytes) {
    return copy_by_hand(from_fd, to_fd, range);
  }
  // Up to the first border by hand, then whole blocks, then what is left.
  const uint64_t head = (kBlockBytes - range.from % kBlockBytes) % kBlockBytes;
  if (head > 0) {
    const Status copied =
        copy_by_hand(from_fd, to_fd, {.from = range.from, .to = range.to, .length_bytes = head});
    if (!copied) return copied;
  }
  const uint64_t middle = (range.length_bytes - head) / kBlockBytes * kBlockBytes;
  const uint64_t done =
      head +
      copy_in_kernel(from_fd, to_fd,
                     {.from = range.from + head, .to = range.to + head, .length_bytes = middle});
  return copy_by_hand(from_fd, to_fd,
                      {.from = range.from + done,
                       .to = range.to + done,
                       .length_bytes = range.length_bytes - done});
}

// How much of the range the kernel copied, from its front. Less than all of it for whatever reason.
uint64_t FileCopy::copy_in_kernel(int from_fd, int to_fd, const CopyRange& range) {
  uint64_t done = 0;
  while (done < range.length_bytes && !stop_) {
    auto from = static_cast<loff_t>(range.from + done);
    auto to = static_cast<loff_t>(range.to + done);
    const ssize_t count = copy_file_range_(from_fd, &from, to_fd, &to,
                                           std::min(kSliceBytes, range.length_bytes - done), 0);
    if (count > 0) {
      done += static_cast<uint64_t>(count);
      continue;
    }
    if (count < 0 && errno == EINTR) continue;
    // 0: the source ended, or a file system that only says so. What is a failure of one file (no
    // space, an I/O error) shows again when it is done by hand; the rest will not change.
    const bool is_of_this_file =
        count == 0 || errno == ENOSPC || errno == EDQUOT || errno == EIO || errno == EFBIG;
    if (!is_of_this_file) may_copy_in_kernel_ = false;
    break;
  }
  return done;
}

Status FileCopy::copy_by_hand(int from_fd, int to_fd, CopyRange range, hash::Xxh128Hasher* hasher) {
  while (range.length_bytes > 0) {
    if (stop_) return interrupted();
    const MutableBytes part = buffer(range.length_bytes);
    if (const Status read = read_all_at(from_fd, range.from, part); !read) return read;
    if (hasher != nullptr) hasher->update(part);
    if (const Status written = write_at(to_fd, range.to, part); !written) return written;
    range.from += part.size();
    range.to += part.size();
    range.length_bytes -= part.size();
  }
  return {};
}

Status FileCopy::move(int fd, const CopyRange& range) {
  if (range.from == range.to) return {};
  // A buffer is read whole before any of it is written, so only the order of the buffers matters:
  // what lies in the target's way is read first.
  if (range.to < range.from) return copy_by_hand(fd, fd, range);
  uint64_t left = range.length_bytes;
  while (left > 0) {
    if (stop_) return interrupted();
    const MutableBytes part = buffer(left);
    left -= part.size();
    if (const Status read = read_all_at(fd, range.from + left, part); !read) return read;
    if (const Status written = write_at(fd, range.to + left, part); !written) return written;
  }
  return {};
}

Status FileCopy::copy_hashed(int from_fd, int to_fd, uint64_t length_bytes,
                             hash::Xxh128Hasher& hasher) {
  return copy_by_hand(from_fd, to_fd, {.from = 0, .to = 0, .length_bytes = length_bytes}, &hasher);
}

bool FileCopy::clone(int from_fd, int to_fd) {
  if (!may_clone_) return false;
  if (ioctl(to_fd, FICLONE, from_fd) == 0) return true;
  // Where it cannot be done for one file it cannot for the next: another file system, or one
  // without.
  const bool is_of_this_file =
      errno == ENOSPC || errno == EDQUOT || errno == EIO || errno == EINTR || errno == ETXTBSY;
  if (!is_of_this_file) may_clone_ = false;
  return false;
}

Status FileCopy::hash(int fd, uint64_t offset, uint64_t length_bytes, hash::Xxh128Hasher& hasher) {
  while (length_bytes > 0) {
    if (stop_) return interrupted();
    const MutableBytes part = buffer(length_bytes);
    if (const Status read = read_all_at(fd, offset, part); !read) return read;
    hasher.update(part);
    offset += part.size();
    length_bytes -= part.size();
  }
  return {};
}

}  // namespace superlifter::client
