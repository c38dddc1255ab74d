#include "core/fs/beneath.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "core/base/escape.h"

namespace superlifter::fs {
namespace {

constexpr uint64_t kResolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
// The kernel answers EAGAIN when a rename raced with the look-up; it says itself that a retry is
// right.
constexpr int kMostRetries = 16;

OpenRequest request(int root_fd, const std::string& path, int flags) {
  OpenRequest out;
  out.root_fd = root_fd;
  out.path = path.empty() ? "." : path;
  out.how.flags = static_cast<uint64_t>(flags | O_CLOEXEC);
  out.how.resolve = kResolve;
  return out;
}

}  // namespace

Result<UniqueFd> open_root(const std::string& path) {
  int fd = -1;
  do {
    fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return fail_errno(errno, "open directory " + escape(path));
  return UniqueFd(fd);
}

OpenRequest read_request(int root_fd, const RelPath& path) {
  return request(root_fd, path.text(), O_RDONLY | O_NONBLOCK | O_NOCTTY);
}

OpenRequest directory_request(int root_fd, const RelPath& path) {
  return request(root_fd, path.text(), O_RDONLY | O_DIRECTORY);
}

Result<UniqueFd> open(const OpenRequest& request) {
  int retries = 0;
  for (;;) {
    open_how how = request.how;
    const long fd = syscall(SYS_openat2, request.root_fd, request.path.c_str(), &how, sizeof(how));
    if (fd >= 0) return UniqueFd(static_cast<int>(fd));
    if (errno == EINTR) continue;
    if (errno == EAGAIN && ++retries < kMostRetries) continue;
    break;
  }
  const int number = errno;
  std::string attempt = "open " + escape(request.path);
  if (number == ENOSYS) attempt += " by openat2(2), which needs Linux 5.6 or newer";
  std::unexpected<Error> failure = fail_errno(number, attempt);
  if (number == ENOTDIR || number == ELOOP) failure.error().code = Errc::kNotFound;
  return failure;
}

Result<UniqueFd> open_directory(int root_fd, const RelPath& path) {
  return open(directory_request(root_fd, path));
}

Result<UniqueFd> open_directory_at(int directory_fd, const std::string& name) {
  const Result<RelPath> path = RelPath().child(name);
  if (!path) return std::unexpected(path.error());
  return open_directory(directory_fd, *path);
}

Validators to_validators(const struct stat& stat) {
  Validators out;
  out.inode = stat.st_ino;
  out.size_bytes = static_cast<uint64_t>(stat.st_size);
  out.mtime_s = stat.st_mtim.tv_sec;
  out.mtime_ns = static_cast<uint32_t>(stat.st_mtim.tv_nsec);
  out.ctime_s = stat.st_ctim.tv_sec;
  out.ctime_ns = static_cast<uint32_t>(stat.st_ctim.tv_nsec);
  return out;
}

}  // namespace superlifter::fs
