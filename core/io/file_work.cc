// See file_work.h.
#include "core/io/file_work.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <memory>
#include <utility>

#include "core/base/limits.h"

namespace superlifter::io {
namespace {

// openat2(2) has no wrapper in glibc 2.36. Where the kernel lacks it the answer is ENOSYS: no
// request falls back to a plain open.
UniqueFd open_beneath(const OpenRequest& request, int& number) {
  open_how how = request.how;
  // EAGAIN: a rename elsewhere raced with RESOLVE_BENEATH and the kernel asks to try again.
  // Bounded, because a tree where somebody renames all the time must not hold this thread.
  constexpr int kAttempts = 32;
  long fd = -1;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    fd = syscall(SYS_openat2, request.root_fd, request.path.c_str(), &how, sizeof(how));
    if (fd >= 0 || (errno != EINTR && errno != EAGAIN)) break;
  }
  number = fd < 0 ? errno : 0;
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

// Reads [offset, offset + most) into `data`, which ends up as long as the file allowed.
int read_range(int fd, uint64_t offset, size_t most, Bytes& data) {
  data.resize(most);
  size_t have = 0;
  int number = 0;
  while (have < most) {
    const ssize_t got =
        pread(fd, data.data() + have, most - have, static_cast<off_t>(offset + have));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) number = errno;
    if (got <= 0) break;
    have += static_cast<size_t>(got);
  }
  data.resize(have);
  return number;
}

void read_small(const FileRequest& request, FileReply& reply) {
  const UniqueFd fd = open_beneath(request.open, reply.sys_errno);
  if (!fd) return;
  const size_t most =
      request.length_bytes < kSmallFileBytes ? request.length_bytes : kSmallFileBytes;
  const int read_errno = read_range(fd.get(), request.offset, most, reply.data);
  reply.sys_errno = stat_into(fd.get(), reply);
  if (reply.sys_errno == 0 && reply.is_regular) reply.sys_errno = read_errno;
  if (reply.sys_errno != 0 || !reply.is_regular) reply.data = Bytes();
}

void open_and_keep(const FileRequest& request, FileReply& reply) {
  UniqueFd fd = open_beneath(request.open, reply.sys_errno);
  if (!fd) return;
  reply.sys_errno = stat_into(fd.get(), reply);
  if (reply.sys_errno != 0 || !reply.is_regular) return;
  // Large ranges are read in order; the kernel may read ahead twice as far.
  posix_fadvise(fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  reply.file = std::make_shared<OpenFile>();
  reply.file->fd = std::move(fd);
}

}  // namespace

FileReply run_file_request(const FileRequest& request) {
  FileReply reply;
  reply.id = request.id;
  switch (request.kind) {
    case FileRequest::Kind::kReadSmall:
      read_small(request, reply);
      break;
    case FileRequest::Kind::kOpen:
      open_and_keep(request, reply);
      break;
    case FileRequest::Kind::kRecheck:
      reply.sys_errno = request.file != nullptr ? stat_into(request.file->fd.get(), reply) : EBADF;
      break;
  }
  return reply;
}

}  // namespace superlifter::io
