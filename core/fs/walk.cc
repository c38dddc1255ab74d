#include "core/fs/walk.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "core/base/check.h"
#include "core/base/escape.h"
#include "core/base/limits.h"
#include "core/base/rel_path.h"
#include "core/base/unique_fd.h"
#include "core/fs/beneath.h"

namespace superlifter::fs {
namespace {

constexpr size_t kListBufferBytes = 256 << 10;
// A name that is a different kind of file at each look is somebody's game; three looks are enough.
constexpr int kMostLooks = 3;

// Failures that say nothing about the file: to leave it out for these would be a lie.
bool is_our_own_shortage(int number) {
  return number == EMFILE || number == ENFILE || number == ENOMEM || number == ENOSYS;
}

const char* special_kind(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFIFO:
      return "is a fifo";
    case S_IFSOCK:
      return "is a socket";
    case S_IFBLK:
    case S_IFCHR:
      return "is a device";
    default:
      return "is of an unknown kind";
  }
}

// The kernel's word alone: who is told of a failure is told the path beside it.
Error plain(Error error) {
  if (error.sys_errno != 0) error.message = std::strerror(error.sys_errno);
  return error;
}

class Walker {
 public:
  Walker(int root_fd, const WalkHandlers& handlers, const WalkOptions& options)
      : root_fd_(root_fd),
        handlers_(handlers),
        max_open_(std::max<size_t>(options.max_open_directories, 1)) {}

  Status run() {
    if (const Status entered = enter_root(); !entered) return entered;
    while (!frames_.empty()) {
      Frame& frame = frames_.back();
      if (frame.next == frame.names.count()) {
        frames_.pop_back();
        continue;
      }
      if (!frame.fd) {
        const Result<bool> same = reopen(frame);
        if (!same) return std::unexpected(same.error());
        if (!*same) {
          frames_.pop_back();
          continue;
        }
      }
      if (const Status visited = visit(frame, frame.names.name(frame.next++)); !visited) {
        return visited;
      }
    }
    return {};
  }

 private:
  // A directory on the way from the root to where the walk is. `path_` begins with its path.
  struct Frame {
    UniqueFd fd;  // None while it is too far up.
    dev_t device = 0;
    ino_t inode = 0;
    size_t path_bytes = 0;
    DirectoryNames names;
    size_t next = 0;
  };

  Status enter_root() {
    Result<UniqueFd> fd = open_listed(root_fd_, RelPath());
    if (!fd) return fail_in("walk root", fd.error());
    struct stat stat{};
    if (::fstat(fd->get(), &stat) != 0) return fail_errno(errno, "stat walk root");
    // A directory that was removed can still be held, and looks empty.
    if (stat.st_nlink == 0) return fail(Errc::kNotFound, "walk root: the directory was removed");
    Result<DirectoryNames> names = list_directory(fd->get());
    if (!names) return fail_in("walk root", names.error());
    const WalkEntry entry{
        .path = {}, .name = "", .depth = 0, .parent_fd = fd->get(), .stat = &stat, .target = {}};
    if (const Status taken = handlers_.entry(entry); !taken) return taken;
    push(std::move(*fd), stat, std::move(*names));
    return {};
  }

  // Looks at one name of the frame on top. Pushes a frame when it is a directory, which ends the
  // life of `frame` and of nothing else.
  Status visit(const Frame& frame, std::string_view name) {
    const int parent_fd = frame.fd.get();
    path_.resize(frame.path_bytes);
    if (!path_.empty()) path_ += '/';
    const size_t name_at = path_.size();
    path_ += name;
    if (path_.size() > kMaxPathBytes) {
      return leave_out(Error{Errc::kLimit, 0, "path is longer than 4,095 bytes"});
    }
    if (!is_valid_name(name)) return leave_out(Error{Errc::kUnsupported, 0, "not a file name"});
    for (int look = 0; look < kMostLooks; ++look) {
      struct stat stat{};
      const char* const text = path_.c_str() + name_at;
      if (::fstatat(parent_fd, text, &stat, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) != 0) {
        if (errno == ENOENT) return {};
        return leave_out(Error{Errc::kIo, errno, std::strerror(errno)});
      }
      WalkEntry entry{.path = path_,
                      .name = path_.c_str() + name_at,
                      .depth = frames_.size(),
                      .parent_fd = parent_fd,
                      .stat = &stat,
                      .target = {}};
      if (handlers_.filter) {
        const Verdict verdict = handlers_.filter(entry);
        if (verdict == Verdict::kSkip) return {};
        if (verdict == Verdict::kStop) return fail(Errc::kClosed, "walk stopped");
      }
      if (S_ISREG(stat.st_mode)) return handlers_.entry(entry);
      if (!S_ISDIR(stat.st_mode) && !S_ISLNK(stat.st_mode)) {
        return leave_out(Error{Errc::kUnsupported, 0, special_kind(stat.st_mode)});
      }
      const Result<bool> settled = S_ISDIR(stat.st_mode) ? descend(entry) : read_link(entry);
      if (!settled) return std::unexpected(settled.error());
      if (*settled) return {};
    }
    return leave_out(Error{Errc::kStale, 0, "keeps changing its kind"});
  }

  // Opens, lists and reports a directory. False: it is no directory any more.
  Result<bool> descend(WalkEntry entry) {
    const Result<RelPath> name = RelPath().child(entry.name);
    if (!name) return std::unexpected(name.error());
    Result<UniqueFd> fd = open_listed(entry.parent_fd, *name);
    if (!fd && fd.error().code == Errc::kNotFound) return false;
    if (!fd) return give_up(plain(fd.error()));
    struct stat stat{};
    if (::fstat(fd->get(), &stat) != 0)
      return give_up(Error{Errc::kIo, errno, std::strerror(errno)});
    Result<DirectoryNames> names = list_directory(fd->get());
    if (!names && names.error().sys_errno == ENOENT) return false;
    if (!names) return give_up(plain(names.error()));
    entry.stat = &stat;
    if (const Status taken = handlers_.entry(entry); !taken) return std::unexpected(taken.error());
    push(std::move(*fd), stat, std::move(*names));
    return true;
  }

  // Reads and reports a symlink. False: it is none any more.
  Result<bool> read_link(WalkEntry entry) {
    std::array<char, kMaxSymlinkBytes + 1> target{};
    const ssize_t size = ::readlinkat(entry.parent_fd, entry.name, target.data(), target.size());
    if (size < 0 && (errno == ENOENT || errno == EINVAL)) return false;
    if (size < 0) return give_up(Error{Errc::kIo, errno, std::strerror(errno)});
    if (size == 0) return give_up(Error{Errc::kUnsupported, 0, "symlink with an empty target"});
    if (static_cast<size_t>(size) > kMaxSymlinkBytes) {
      return give_up(Error{Errc::kLimit, 0, "symlink target is longer than 4,095 bytes"});
    }
    entry.target = {target.data(), static_cast<size_t>(size)};
    if (const Status taken = handlers_.entry(entry); !taken) return std::unexpected(taken.error());
    return true;
  }

  // Opens a directory so that listing it leaves no trace where that is allowed: O_NOATIME needs
  // ownership, and one refusal is enough to stop asking.
  Result<UniqueFd> open_listed(int parent_fd, const RelPath& path) {
    OpenRequest request = directory_request(parent_fd, path);
    if (no_atime_) {
      request.how.flags |= O_NOATIME;
      Result<UniqueFd> fd = open(request);
      if (fd || fd.error().sys_errno != EPERM) return fd;
      request.how.flags &= ~static_cast<uint64_t>(O_NOATIME);
      fd = open(request);
      if (fd) no_atime_ = false;
      return fd;
    }
    return open(request);
  }

  void push(UniqueFd fd, const struct stat& stat, DirectoryNames names) {
    Frame frame;
    frame.fd = std::move(fd);
    frame.device = stat.st_dev;
    frame.inode = stat.st_ino;
    frame.path_bytes = path_.size();
    frame.names = std::move(names);
    frames_.push_back(std::move(frame));
    CHECK(frames_.size() <= kMaxDepth + 1);
    if (frames_.size() > max_open_) frames_[frames_.size() - 1 - max_open_].fd.reset();
  }

  // Opens a frame's directory again. False (and reported) when another one has taken its place.
  Result<bool> reopen(Frame& frame) {
    path_.resize(frame.path_bytes);
    const Result<RelPath> path = RelPath::parse(path_);
    if (!path) return std::unexpected(path.error());
    Result<UniqueFd> fd = open_listed(root_fd_, *path);
    struct stat stat{};
    if (!fd && is_our_own_shortage(fd.error().sys_errno)) return std::unexpected(fd.error());
    const bool same = fd && ::fstat(fd->get(), &stat) == 0 && stat.st_dev == frame.device &&
                      stat.st_ino == frame.inode;
    if (!same) {
      const Status told = leave_out(Error{Errc::kStale, 0, "was replaced while it was walked"});
      if (!told) return std::unexpected(told.error());
      return false;
    }
    frame.fd = std::move(*fd);
    return true;
  }

  // leave_out for those that answer "settled".
  Result<bool> give_up(const Error& why) {
    if (const Status told = leave_out(why); !told) return std::unexpected(told.error());
    return true;
  }

  Status leave_out(const Error& why) {
    if (is_our_own_shortage(why.sys_errno)) return fail_in("walk " + escape(path_), why);
    if (handlers_.left_out) handlers_.left_out(path_, why);
    return {};
  }

  const int root_fd_;
  const WalkHandlers& handlers_;
  const size_t max_open_;
  bool no_atime_ = true;
  std::string path_;  // Of what is being looked at.
  std::vector<Frame> frames_;
};

}  // namespace

Result<DirectoryNames> list_directory(int directory_fd) {
  DirectoryNames out;
  // Kept for its size: one a thread.
  thread_local std::vector<char> buffer(kListBufferBytes);
  for (;;) {
    const ssize_t size = ::getdents64(directory_fd, buffer.data(), buffer.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return fail_errno(errno, "list directory");
    if (size == 0) break;
    for (size_t at = 0; at < static_cast<size_t>(size);) {
      // Records are 8-byte aligned within the buffer, and vector storage is aligned for any scalar.
      const auto* const entry = reinterpret_cast<const dirent64*>(buffer.data() + at);
      at += entry->d_reclen;
      const std::string_view name(static_cast<const char*>(entry->d_name));
      if (name == "." || name == "..") continue;
      out.names_.push_back({.offset = out.text_.size(),
                            .size_bytes = static_cast<uint16_t>(name.size()),
                            .type = entry->d_type});
      out.text_ += name;
    }
  }
  const std::string_view text = out.text_;
  const auto view = [text](const DirectoryNames::Name& name) {
    return text.substr(name.offset, name.size_bytes);
  };
  std::sort(out.names_.begin(), out.names_.end(),
            [view](const auto& a, const auto& b) { return view(a) < view(b); });
  // A directory that changes while it is read may show a name twice.
  const auto end = std::unique(out.names_.begin(), out.names_.end(),
                               [view](const auto& a, const auto& b) { return view(a) == view(b); });
  out.names_.erase(end, out.names_.end());
  return out;
}

Status walk(int root_fd, const WalkHandlers& handlers, const WalkOptions& options) {
  return Walker(root_fd, handlers, options).run();
}

}  // namespace superlifter::fs
