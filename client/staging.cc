#include "client/staging.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <memory>
#include <vector>

#include "core/base/escape.h"
#include "core/base/limits.h"
#include "core/fs/beneath.h"

namespace superlifter::client {
namespace {

constexpr const char* kStage = "stage";
constexpr const char* kLock = "lock";
constexpr size_t kDigestHexBytes = 32;
constexpr size_t kMaxHeldLevels = 64;  // Open directories of remove_tree().
constexpr int kLockAttempts = 16;

struct CloseDirectory {
  void operator()(DIR* directory) const { closedir(directory); }
};
using Directory = std::unique_ptr<DIR, CloseDirectory>;

// A stream over a new fd of the same directory. Null with errno set on failure.
Directory open_stream(int directory_fd) {
  UniqueFd fd(openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return nullptr;
  Directory stream(fdopendir(fd.get()));
  if (stream != nullptr) static_cast<void>(fd.release());
  return stream;
}

bool is_dot(const char* name) {
  return std::string_view(name) == "." || std::string_view(name) == "..";
}

Result<UniqueFd> make_directory(int parent_fd, const std::string& name, const std::string& what) {
  if (mkdirat(parent_fd, name.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail_errno(errno, "make " + what);
  }
  Result<UniqueFd> fd = fs::open_directory_at(parent_fd, name);
  if (!fd) return fail_in("open " + what, fd.error());
  return fd;
}

// Takes the lock. Nothing (no fd) when another process removed the file meanwhile: to be tried
// again.
Result<UniqueFd> take_lock(int state_fd) {
  UniqueFd lock(openat(state_fd, kLock, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!lock.valid() && errno == ENOENT) return UniqueFd();  // The directory was removed.
  if (!lock.valid()) return fail_errno(errno, "open .superlifter/lock");
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return fail_errno(errno, "lock .superlifter/lock");
    char pid[32] = {};
    const ssize_t got = pread(lock.get(), pid, sizeof(pid) - 1, 0);
    std::string holder =
        got > 0 ? escape(std::string_view(pid, static_cast<size_t>(got))) : "unknown";
    return fail(Errc::kBusy, "another pull is running in this directory (pid " + holder + ")");
  }
  struct stat held{};
  struct stat named{};
  const bool is_same = fstat(lock.get(), &held) == 0 &&
                       fstatat(state_fd, kLock, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
                       held.st_ino == named.st_ino && held.st_dev == named.st_dev;
  if (!is_same) return UniqueFd();
  const std::string pid = std::to_string(getpid());
  // The pid is for people; a full disk must not keep a pull from running that would free space.
  if (ftruncate(lock.get(), 0) == 0) {
    static_cast<void>(!pwrite(lock.get(), pid.data(), pid.size(), 0));
  }
  return lock;
}

}  // namespace

Staging::Staging() = default;
Staging::~Staging() = default;
Staging::Staging(Staging&&) noexcept = default;
Staging& Staging::operator=(Staging&&) noexcept = default;

Result<Staging> Staging::open(int destination_fd) {
  Staging staging;
  staging.destination_ = UniqueFd(fcntl(destination_fd, F_DUPFD_CLOEXEC, 3));
  if (!staging.destination_.valid()) return fail_errno(errno, "duplicate the destination's fd");
  // A pull that ends removes what only it needed, the lock last: what was locked may be gone by
  // then.
  for (int tried = 0; !staging.lock_.valid(); ++tried) {
    if (tried == kLockAttempts) return fail(Errc::kBusy, "other pulls keep coming and going here");
    Result<UniqueFd> state = make_directory(destination_fd, std::string(kStateDirectory),
                                            "the state directory .superlifter");
    if (!state) return std::unexpected(state.error());
    staging.state_ = std::move(*state);
    Result<UniqueFd> lock = take_lock(staging.state_.get());
    if (!lock) return std::unexpected(lock.error());
    staging.lock_ = std::move(*lock);
  }
  Result<UniqueFd> stage =
      make_directory(staging.state_.get(), kStage, "the staging directory .superlifter/stage");
  if (!stage) return std::unexpected(stage.error());
  staging.stage_ = std::move(*stage);
  if (const Status scanned = staging.scan(); !scanned) return std::unexpected(scanned.error());
  return staging;
}

// Collects what an earlier run left and removes what is of no use.
Status Staging::scan() {
  const Directory stream = open_stream(stage_.get());
  if (stream == nullptr) return fail_errno(errno, "read .superlifter/stage");
  std::vector<std::string> useless;
  while (const dirent* item = readdir(stream.get())) {
    if (is_dot(item->d_name)) continue;
    useless.emplace_back(item->d_name);
    const std::string_view name(item->d_name);
    const size_t dot = name.rfind('.');
    if (name.size() <= kDigestHexBytes || name[kDigestHexBytes] != '-' ||
        dot == std::string_view::npos || dot < kDigestHexBytes) {
      continue;
    }
    uint64_t number = 0;
    const std::string_view digits = name.substr(dot + 1);
    if (std::from_chars(digits.data(), digits.data() + digits.size(), number).ec != std::errc()) {
      continue;
    }
    next_number_ = std::max(next_number_, number + 1);
    struct stat stat{};
    if (fstatat(stage_.get(), item->d_name, &stat, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (!S_ISREG(stat.st_mode) || stat.st_size == 0) continue;
    leftovers_.emplace(name.substr(0, dot),
                       Leftover{std::string(name), static_cast<uint64_t>(stat.st_size)});
    useless.pop_back();
  }
  for (const std::string& name : useless) {
    uint64_t removed = 0;
    if (const Status gone = remove_tree(stage_.get(), name, removed); !gone) {
      return fail_in("clear .superlifter/stage", gone.error());
    }
  }
  return {};
}

std::string Staging::new_name(const hash::Xxh128& digest, uint64_t size_bytes) {
  const std::string number = "." + std::to_string(next_number_++);
  if (!digest.known()) return "new" + number;
  return hash::to_hex(digest.bytes) + "-" + std::to_string(size_bytes) + number;
}

Staging::Leftover Staging::take_leftover(const hash::Xxh128& digest, uint64_t size_bytes) {
  if (!digest.known() || leftovers_.empty()) return {};
  const auto found = leftovers_.find(hash::to_hex(digest.bytes) + "-" + std::to_string(size_bytes));
  if (found == leftovers_.end()) return {};
  Leftover leftover = std::move(found->second);
  leftovers_.erase(found);
  leftover.size_bytes = std::min(leftover.size_bytes, size_bytes);
  return leftover;
}

void Staging::sweep() {
  const Directory stream = open_stream(stage_.get());
  if (stream == nullptr) return;
  std::vector<std::string> names;
  while (const dirent* item = readdir(stream.get())) {
    if (!is_dot(item->d_name)) names.emplace_back(item->d_name);
  }
  uint64_t removed = 0;
  for (const std::string& name : names) {
    static_cast<void>(remove_tree(stage_.get(), name, removed));
  }
  leftovers_.clear();
}

void Staging::remove() {
  unlinkat(state_.get(), kStage, AT_REMOVEDIR);
  // The lock goes last and only when nothing else is there: a state file keeps the directory.
  if (faccessat(state_.get(), kStateFile, F_OK, AT_SYMLINK_NOFOLLOW) == 0) return;
  unlinkat(state_.get(), kLock, 0);
  unlinkat(destination_.get(), std::string(kStateDirectory).c_str(), AT_REMOVEDIR);
}

bool make_accessible(int directory_fd) {
  struct stat stat{};
  if (geteuid() == 0 || fstat(directory_fd, &stat) != 0) return false;
  if (stat.st_uid != geteuid() || (stat.st_mode & S_IRWXU) == S_IRWXU) return false;
  return fchmod(directory_fd, (stat.st_mode & 07777U) | S_IRWXU) == 0;
}

Result<UniqueFd> open_accessible_at(int directory_fd, const std::string& name) {
  Result<UniqueFd> fd = fs::open_directory_at(directory_fd, name);
  if (fd || fd.error().sys_errno != EACCES) return fd;
  // What may not be read cannot be opened, so the mode goes by name; a symlink is not followed.
  struct stat stat{};
  if (fstatat(directory_fd, name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0 ||
      !S_ISDIR(stat.st_mode) ||
      fchmodat(directory_fd, name.c_str(), (stat.st_mode & 07777U) | S_IRWXU,
               AT_SYMLINK_NOFOLLOW) != 0) {
    return fd;
  }
  return fs::open_directory_at(directory_fd, name);
}

namespace {

// One call of remove_tree().
class Removal {
 public:
  Removal(int directory_fd, uint64_t& removed, const KeepEntry& keep)
      : directory_fd_(directory_fd), removed_(removed), keep_(keep) {}

  Status run(const std::string& name) {
    if (const Status done = remove_entry(directory_fd_, name); !done) return done;
    while (!levels_.empty()) {
      Level& level = levels_.back();
      if (level.names.empty()) {
        if (const Status left = leave(); !left) return left;
        continue;
      }
      const std::string child = std::move(level.names.back());
      level.names.pop_back();
      if (const Status done = remove_entry(level.fd.get(), child); !done) return done;
    }
    return {};
  }

 private:
  struct Level {
    UniqueFd fd;  // Not valid: let go for depth.
    dev_t device = 0;
    ino_t inode = 0;
    std::string name;
    size_t path_bytes = 0;           // Of the path with this name.
    std::vector<std::string> names;  // Left to remove.
    bool keeps = false;              // Something in it stays.
  };

  static std::unexpected<Error> failed(int number, const std::string& name) {
    return fail_errno(number, "remove " + escape(name));
  }

  // Removes what is no directory; enters what is one.
  Status remove_entry(int parent_fd, const std::string& name) {
    const size_t path_bytes = levels_.empty() ? 0 : levels_.back().path_bytes;
    path_.resize(path_bytes);
    if (!path_.empty()) path_ += '/';
    path_ += name;
    struct stat stat{};
    if (keep_) {
      const bool found = fstatat(parent_fd, name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) == 0;
      if (!found && errno == ENOENT) return {};
      if (!found) return failed(errno, name);
      if (keep_(path_, S_ISDIR(stat.st_mode))) {
        if (!levels_.empty()) levels_.back().keeps = true;
        return {};
      }
    }
    if (unlinkat(parent_fd, name.c_str(), 0) == 0) {
      ++removed_;
      return {};
    }
    const int number = errno;
    if (number == ENOENT) return {};
    // EPERM is what other systems, and Linux for files that may not be removed, answer.
    const bool may_be_directory = number == EISDIR || number == EPERM;
    if (!may_be_directory || fstatat(parent_fd, name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0 ||
        !S_ISDIR(stat.st_mode)) {
      return failed(number, name);
    }
    return enter(parent_fd, name);
  }

  Status enter(int parent_fd, const std::string& name) {
    if (levels_.size() >= kMaxDepth) {
      return fail(Errc::kLimit, "remove " + escape(name) + ": more than " +
                                    std::to_string(kMaxDepth) + " directories deep");
    }
    Result<UniqueFd> fd = open_accessible_at(parent_fd, name);
    if (!fd) return fail_in("remove", fd.error());
    make_accessible(fd->get());
    struct stat stat{};
    if (fstat(fd->get(), &stat) != 0) return failed(errno, name);
    const Directory stream = open_stream(fd->get());
    if (stream == nullptr) return failed(errno, name);
    Level level;
    level.fd = std::move(*fd);
    level.device = stat.st_dev;
    level.inode = stat.st_ino;
    level.name = name;
    level.path_bytes = path_.size();
    while (const dirent* item = readdir(stream.get())) {
      if (!is_dot(item->d_name)) level.names.emplace_back(item->d_name);
    }
    levels_.push_back(std::move(level));
    if (levels_.size() > kMaxHeldLevels) levels_[levels_.size() - 1 - kMaxHeldLevels].fd.reset();
    return {};
  }

  // Goes up, and removes the directory that was emptied.
  Status leave() {
    Level done = std::move(levels_.back());
    levels_.pop_back();
    int parent_fd = directory_fd_;
    if (!levels_.empty()) {
      Level& parent = levels_.back();
      if (!parent.fd.valid()) {
        if (const Status opened = reopen(parent, done); !opened) return opened;
      }
      parent_fd = parent.fd.get();
    }
    if (done.keeps) {
      if (!levels_.empty()) levels_.back().keeps = true;
      return {};
    }
    if (unlinkat(parent_fd, done.name.c_str(), AT_REMOVEDIR) == 0) {
      ++removed_;
    } else if (errno != ENOENT) {
      return failed(errno, done.name);
    }
    return {};
  }

  // The way back up, only if it leads to where we came from.
  static Status reopen(Level& parent, const Level& child) {
    UniqueFd fd(openat(child.fd.get(), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd.valid()) return failed(errno, child.name);
    struct stat stat{};
    if (fstat(fd.get(), &stat) != 0) return failed(errno, child.name);
    if (stat.st_dev != parent.device || stat.st_ino != parent.inode) {
      return fail(Errc::kIo, "remove " + escape(child.name) + ": it was moved meanwhile");
    }
    parent.fd = std::move(fd);
    return {};
  }

  const int directory_fd_;
  uint64_t& removed_;
  const KeepEntry& keep_;
  std::vector<Level> levels_;
  std::string path_;
};

}  // namespace

Status remove_tree(int directory_fd, const std::string& name, uint64_t& removed,
                   const KeepEntry& keep) {
  return Removal(directory_fd, removed, keep).run(name);
}

}  // namespace superlifter::client
