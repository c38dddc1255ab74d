// See inheritance.h.
#include "daemon/inheritance.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

namespace superlifter::daemon {
namespace {

// Owns an inherited descriptor; from here on it does not cross another exec.
Result<UniqueFd> take(int fd, const std::string& what) {
  if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return fail_errno(errno, "inherited " + what);
  return UniqueFd(fd);
}

Result<Bytes> read_whole(int fd) {
  struct stat status{};
  if (fstat(fd, &status) != 0) return fail_errno(errno, "inherited settings");
  Bytes bytes(static_cast<size_t>(status.st_size));
  size_t have = 0;
  while (have < bytes.size()) {
    const ssize_t got =
        pread(fd, bytes.data() + have, bytes.size() - have, static_cast<off_t>(have));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(errno, "inherited settings");
    if (got == 0) return fail(Errc::kCorrupt, "inherited settings end early");
    have += static_cast<size_t>(got);
  }
  return bytes;
}

}  // namespace

Result<UniqueFd> make_settings_fd(ByteView snapshot) {
  UniqueFd fd(memfd_create("superlifter-settings", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return fail_errno(errno, "make the settings for the children");
  size_t done = 0;
  while (done < snapshot.size()) {
    const ssize_t wrote = write(fd.get(), snapshot.data() + done, snapshot.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return fail_errno(errno, "write the settings for the children");
    done += static_cast<size_t>(wrote);
  }
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return fail_errno(errno, "seal the settings for the children");
  }
  return fd;
}

std::vector<std::string> child_arguments(const ChildOptions& child) {
  return {"--child",        child.role == ChildRole::kWorker ? "worker" : "indexer",
          "--child-index",  std::to_string(child.index),
          "--child-listen", std::to_string(child.listen_count)};
}

Result<Inheritance> receive_inheritance(const ChildOptions& child) {
  if (child.listen_count > kMaxListenSockets) {
    return fail(Errc::kCorrupt, "inherited listening sockets: more than there can be");
  }
  // Should the master die before this line, the end of the control socket says so.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  Result<UniqueFd> control = take(kControlFd, "control socket");
  if (!control) return std::unexpected(control.error());
  Result<UniqueFd> segment_fd = take(kSegmentFd, "segment");
  if (!segment_fd) return std::unexpected(segment_fd.error());
  Result<shm::Segment> segment = shm::Segment::attach(std::move(*segment_fd));
  if (!segment) return std::unexpected(segment.error());
  const Result<UniqueFd> settings_fd = take(kSettingsFd, "settings");
  if (!settings_fd) return std::unexpected(settings_fd.error());
  const Result<Bytes> snapshot = read_whole(settings_fd->get());
  if (!snapshot) return std::unexpected(snapshot.error());
  Result<Settings> settings = read_snapshot(*snapshot);
  if (!settings) return std::unexpected(settings.error());
  std::vector<UniqueFd> listen;
  for (uint32_t i = 0; i < child.listen_count; ++i) {
    Result<UniqueFd> fd = take(kFirstListenFd + static_cast<int>(i), "listening socket");
    if (!fd) return std::unexpected(fd.error());
    listen.push_back(std::move(*fd));
  }
  return Inheritance{.child = child,
                     .control = std::move(*control),
                     .segment = std::move(*segment),
                     .settings = std::move(*settings),
                     .listen = std::move(listen)};
}

}  // namespace superlifter::daemon
