// See file_work.h.
#include "core/io/file_work.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <utility>

#include "core/base/check.h"
#include "core/base/limits.h"

namespace superlifter::io {
namespace {

// Whether a call may wait for a disk. One that may not and would have to fails with EAGAIN.
enum class Wait : bool { kNo, kYes };

// openat2(2) has no wrapper in glibc 2.36. Where the kernel lacks it the answer is ENOSYS: no
// request falls back to a plain open.
UniqueFd open_beneath(const OpenRequest& request, Wait wait, int& number) {
  open_how how = request.how;
  if (wait == Wait::kNo) how.resolve |= RESOLVE_CACHED;
  // EAGAIN: a rename elsewhere raced with RESOLVE_BENEATH and the kernel asks to try again.
  // Bounded, because a tree where somebody renames all the time must not hold this thread.
  constexpr int kAttempts = 32;
  long fd = -1;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    fd = syscall(SYS_openat2, request.root_fd, request.path.c_str(), &how, sizeof(how));
    if (fd >= 0 || (errno != EINTR && errno != EAGAIN)) break;
    if (wait == Wait::kNo) break;
  }
  number = fd < 0 ? errno : 0;
  // A kernel before 5.12 does not know RESOLVE_CACHED.
  if (wait == Wait::kNo && number == EINVAL) number = EAGAIN;
  return UniqueFd(static_cast<int>(fd));
}

// Fills the stat part of a reply. Returns 0 or errno.
int stat_into(int fd, FileReply& reply) {
  struct stat status{};
  if (fstat(fd, &status) != 0) return errno;
  reply.is_regular = S_ISREG(status.st_mode);
  reply.validators = {.inode = status.st_ino,
                      .size_bytes = static_cast<uint64_t>(status.st_size),
                      .mtime_s = status.st_mtim.tv_sec,
                      .ctime_s = status.st_ctim.tv_sec,
                      .mtime_ns = static_cast<uint32_t>(status.st_mtim.tv_nsec),
                      .ctime_ns = static_cast<uint32_t>(status.st_ctim.tv_nsec)};
  return 0;
}

// Reads one range to `to`. Returns the bytes there were; errno is added to `number`.
size_t read_range(int fd, FileRequest::Range range, Wait wait, uint8_t* to, int& number) {
  const int flags = wait == Wait::kNo ? RWF_NOWAIT : 0;
  size_t have = 0;
  while (have < range.length_bytes) {
    const iovec piece{.iov_base = to + have, .iov_len = range.length_bytes - have};
    const ssize_t got = preadv2(fd, &piece, 1, static_cast<off_t>(range.offset + have), flags);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) number = errno;
    // A file system that cannot promise not to wait.
    if (got < 0 && wait == Wait::kNo && errno == EOPNOTSUPP) number = EAGAIN;
    if (got <= 0) break;
    have += static_cast<size_t>(got);
  }
  return have;
}

// Reads all ranges, one behind the other, then looks at the file: bytes that changed while they
// were read never carry the stamps of before.
void read_and_stat(int fd, const FileRequest& request, Wait wait, FileReply& reply) {
  size_t most = 0;
  for (const FileRequest::Range& range : request.ranges)
    most += range.length_bytes;
  CHECK(request.ranges.size() <= kMaxRangesTogether && most <= kSmallFileBytes);
  reply.data.resize(most);
  size_t have = 0;
  int read_errno = 0;
  for (const FileRequest::Range& range : request.ranges) {
    have += read_range(fd, range, wait, reply.data.data() + have, read_errno);
    if (read_errno != 0) break;
  }
  reply.data.resize(have);
  reply.sys_errno = stat_into(fd, reply);
  if (reply.sys_errno == 0 && reply.is_regular) reply.sys_errno = read_errno;
  if (reply.sys_errno != 0 || !reply.is_regular) reply.data = Bytes();
}

void read_small(const FileRequest& request, Wait wait, FileReply& reply) {
  const UniqueFd fd = open_beneath(request.open, wait, reply.sys_errno);
  if (fd) read_and_stat(fd.get(), request, wait, reply);
}

void open_and_keep(const FileRequest& request, Wait wait, FileReply& reply) {
  UniqueFd fd = open_beneath(request.open, wait, reply.sys_errno);
  if (!fd) return;
  reply.sys_errno = stat_into(fd.get(), reply);
  if (reply.sys_errno != 0 || !reply.is_regular) return;
  // Large ranges are read in order; the kernel may read ahead twice as far.
  posix_fadvise(fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  reply.file = std::make_shared<OpenFile>();
  reply.file->fd = std::move(fd);
}

FileReply run(const FileRequest& request, Wait wait) {
  FileReply reply;
  reply.id = request.id;
  switch (request.kind) {
    case FileRequest::Kind::kReadSmall:
      read_small(request, wait, reply);
      break;
    case FileRequest::Kind::kOpen:
      open_and_keep(request, wait, reply);
      break;
    case FileRequest::Kind::kReadOpen:
      CHECK(request.file != nullptr);
      read_and_stat(request.file->fd.get(), request, wait, reply);
      break;
    case FileRequest::Kind::kRecheck:
      reply.sys_errno = request.file != nullptr ? stat_into(request.file->fd.get(), reply) : EBADF;
      break;
  }
  return reply;
}

}  // namespace

FileReply run_file_request(const FileRequest& request) {
  return run(request, Wait::kYes);
}

std::optional<FileReply> try_file_request(const FileRequest& request) {
  FileReply reply = run(request, Wait::kNo);
  if (reply.sys_errno == EAGAIN) return std::nullopt;
  return reply;
}

}  // namespace superlifter::io
