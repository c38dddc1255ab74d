#include "core/fs/watch.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/base/escape.h"
#include "core/base/limits.h"
#include "core/base/rel_path.h"
#include "core/fs/beneath.h"
#include "core/fs/walk.h"

namespace superlifter::fs {
namespace {

// Not IN_MODIFY: a file that is being written is no state to publish, and it would wake us for each
// write. IN_CLOSE_WRITE comes when it is whole.
constexpr uint32_t kEvents = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_CLOSE_WRITE |
                             IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF;
constexpr uint32_t kWatchFlags = IN_ONLYDIR | IN_EXCL_UNLINK;
constexpr std::string_view kOwnDirectory = ".superlifter";
constexpr size_t kReadBytes = 64 << 10;
// Reads in one drain: a writer that never stops must not keep us here. The fd stays readable.
constexpr int kMostReads = 256;

}  // namespace

Result<Watcher> Watcher::make(int root_fd, WatchOptions options) {
  Watcher out;
  const int fd = ::inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (fd < 0 && errno == EMFILE) {
    return fail(Errc::kLimit, "watch: no inotify instance left (fs.inotify.max_user_instances)");
  }
  if (fd < 0) return fail_errno(errno, "watch: inotify_init1");
  out.fd_ = UniqueFd(fd);
  out.root_fd_ = root_fd;
  out.options_ = std::move(options);
  if (const Status watched = out.watch_below({}); !watched) {
    return std::unexpected(watched.error());
  }
  if (out.root_watch_ == 0) return fail(Errc::kNotFound, "watch: the root directory is gone");
  return out;
}

Result<Watcher::Changes> Watcher::drain() {
  Changes changes;
  std::vector<char> buffer(kReadBytes);
  for (int reads = 0; reads < kMostReads; ++reads) {
    const ssize_t size = ::read(fd_.get(), buffer.data(), buffer.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno == EAGAIN) break;
    if (size <= 0) return fail_errno(size < 0 ? errno : EIO, "watch: read inotify events");
    for (size_t at = 0; at + sizeof(inotify_event) <= static_cast<size_t>(size);) {
      inotify_event event{};
      std::memcpy(&event, buffer.data() + at, sizeof(event));
      const char* const text = buffer.data() + at + sizeof(event);
      const std::string_view name(text, ::strnlen(text, event.len));
      at += sizeof(event) + event.len;
      if (const Status handled = handle(event.wd, event.mask, name, changes); !handled) {
        return std::unexpected(handled.error());
      }
    }
  }
  if (any_detached_) drop_detached();
  if (changes.events_lost && !changes.root_gone) {
    // Directories may have come unseen. Watches that exist are found again, not doubled.
    if (const Status watched = watch_below({}); !watched) return std::unexpected(watched.error());
  }
  return changes;
}

Status Watcher::handle(int watch, uint32_t mask, std::string_view name, Changes& changes) {
  if ((mask & IN_Q_OVERFLOW) != 0) {
    changes.changed = true;
    changes.events_lost = true;
    return {};
  }
  if ((mask & IN_IGNORED) != 0) {
    forget(watch);
    return {};
  }
  const bool own = (mask & (IN_DELETE_SELF | IN_MOVE_SELF)) != 0;
  if (own || name.empty()) {
    // A directory's own attributes or end. Its parent reports the same by name, but nobody stands
    // above the root.
    if (watch != root_watch_) return {};
    changes.changed = true;
    if (own) changes.root_gone = true;
    return {};
  }
  if (!watches_.contains(watch)) return {};  // It left the tree a moment ago.
  std::string path;
  const bool reachable = path_of(watch, path);
  if (!path.empty()) path += '/';
  path += name;
  const bool directory = (mask & IN_ISDIR) != 0;
  if (reachable && is_ignored(path, directory ? IsDirectory::kYes : IsDirectory::kNo)) return {};
  changes.changed = true;
  if (!directory || !reachable) return {};
  const Place place(watch, name);
  if ((mask & IN_MOVED_FROM) != 0) detach(place);
  if ((mask & (IN_CREATE | IN_MOVED_TO)) != 0) return watch_below(place);
  return {};
}

// Watches a directory and all below it, with a list of its own in place of recursion.
Status Watcher::watch_below(Place place) {
  std::vector<Place> pending;
  pending.push_back(std::move(place));
  while (!pending.empty()) {
    const Place next = std::move(pending.back());
    pending.pop_back();
    if (const Status watched = watch_one(next, pending); !watched) return watched;
  }
  return {};
}

// Watches one directory and appends those right below it. One that has vanished or cannot be read
// is passed over: the walk reports it.
Status Watcher::watch_one(const Place& place, std::vector<Place>& found) {
  std::string text;
  const bool is_root = place.first == 0;
  if (!is_root) {
    if (!path_of(place.first, text)) return {};
    if (!text.empty()) text += '/';
    text += place.second;
    if (is_ignored(text, IsDirectory::kYes)) return {};
  }
  const Result<RelPath> path = RelPath::parse(text);
  if (!path) return {};  // Too long: the walk leaves it out too.
  const Result<UniqueFd> fd = open_directory(root_fd_, *path);
  if (!fd) {
    const int number = fd.error().sys_errno;
    if (number == EMFILE || number == ENFILE || number == ENOMEM || number == ENOSYS) {
      return fail_in("watch", fd.error());
    }
    return {};
  }
  if (is_skipped(fd->get())) return {};
  const std::string proc = "/proc/self/fd/" + std::to_string(fd->get());
  const int watch = ::inotify_add_watch(fd_.get(), proc.c_str(), kEvents | kWatchFlags);
  if (watch < 0 && errno == ENOSPC) {
    return fail(Errc::kLimit, "watch: no inotify watch left after " +
                                  std::to_string(watches_.size()) +
                                  " directories (fs.inotify.max_user_watches)");
  }
  if (watch < 0 && errno == EACCES) return {};
  if (watch < 0) return fail_errno(errno, "watch " + escape(text));
  if (is_root) {
    root_watch_ = watch;
    watches_[watch] = nullptr;
  } else {
    attach(watch, place);
  }
  const Result<DirectoryNames> names = list_directory(fd->get());
  if (!names) return {};
  for (size_t i = 0; i < names->count(); ++i) {
    const std::string child(names->name(i));
    bool is_directory = names->type(i) == DT_DIR;
    struct stat stat{};
    if (names->type(i) == DT_UNKNOWN &&
        ::fstatat(fd->get(), child.c_str(), &stat, AT_SYMLINK_NOFOLLOW) == 0) {
      is_directory = S_ISDIR(stat.st_mode);
    }
    if (is_directory) found.emplace_back(watch, child);
  }
  return {};
}

bool Watcher::is_skipped(int directory_fd) const {
  struct stat skipped{};
  struct stat stat{};
  return options_.skip_directory_fd >= 0 && ::fstat(options_.skip_directory_fd, &skipped) == 0 &&
         ::fstat(directory_fd, &stat) == 0 && stat.st_ino == skipped.st_ino &&
         stat.st_dev == skipped.st_dev;
}

// A directory that moved within the tree has the watch it had: it hangs at its new place from now
// on.
void Watcher::attach(int watch, const Place& place) {
  if (watch == root_watch_) return;
  const auto occupant = places_.find(place);
  if (occupant != places_.end() && occupant->second == watch) return;
  detach(place);
  Places::value_type*& node = watches_[watch];
  if (node != nullptr) places_.erase(Place(node->first));
  node = &*places_.emplace(place, watch).first;
}

void Watcher::detach(const Place& place) {
  const auto found = places_.find(place);
  if (found == places_.end()) return;
  watches_[found->second] = nullptr;
  places_.erase(found);
  any_detached_ = true;
}

void Watcher::forget(int watch) {
  const auto found = watches_.find(watch);
  if (found == watches_.end()) return;
  if (found->second != nullptr) places_.erase(Place(found->second->first));
  watches_.erase(found);
}

// Removes the watches of directories that moved out of the tree, and of all beneath them.
void Watcher::drop_detached() {
  std::vector<int> lost;
  std::string ignored;
  for (const auto& [watch, node] : watches_) {
    if (!path_of(watch, ignored)) lost.push_back(watch);
  }
  for (const int watch : lost) {
    ::inotify_rm_watch(fd_.get(), watch);
    forget(watch);
  }
  any_detached_ = false;
}

bool Watcher::path_of(int watch, std::string& path) const {
  std::vector<const std::string*> names;
  for (int at = watch; at != root_watch_;) {
    const auto found = watches_.find(at);
    if (found == watches_.end() || found->second == nullptr || names.size() > kMaxDepth)
      return false;
    const Place& place = found->second->first;
    names.push_back(&place.second);
    at = place.first;
  }
  path.clear();
  for (size_t i = names.size(); i-- > 0;) {
    if (!path.empty()) path += '/';
    path += *names[i];
  }
  return path.size() <= kMaxPathBytes;
}

bool Watcher::is_ignored(const std::string& path, IsDirectory is_directory) const {
  if (path == kOwnDirectory) return true;
  const auto matches = [&](const Glob& glob) { return glob.matches(path, is_directory); };
  return std::any_of(options_.exclude.begin(), options_.exclude.end(), matches) &&
         std::none_of(options_.notice.begin(), options_.notice.end(), matches);
}

}  // namespace superlifter::fs
