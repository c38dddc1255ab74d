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

bool is_dot(const char* name) { return std::string_view(name) == "." || std::string_view(name) == ".."; }

Result<UniqueFd> make_directory(int parent_fd, const std::string& name, const std::string& what) {
  if (mkdirat(parent_fd, name.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail_errno(errno, "make " + what);
  }
  Result<UniqueFd> fd = fs::open_directory_at(parent_fd, name);
  if (!fd) return fail_in("open " + what, fd.error());
  return fd;
}

Result<UniqueFd> take_lock(int state_fd) {
  UniqueFd lock(openat(state_fd, kLock, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!lock.valid()) return fail_errno(errno, "open .superlifter/lock");
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return fail_errno(errno, "lock .superlifter/lock");
    char pid[32] = {};
    const ssize_t got = pread(lock.get(), pid, sizeof(pid) - 1, 0);
    std::string holder = got > 0 ? escape(std::string_view(pid, static_cast<size_t>(got))) : "unknown";
    return fail(Errc::kBusy, "another pull is running in this directory (pid " + holder + ")");
  }
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
  Result<UniqueFd> state =
      make_directory(destination_fd, std::string(kStateDirectory), "the state directory .superlifter");
  if (!state) return std::unexpected(state.error());
  staging.state_ = std::move(*state);
  Result<UniqueFd> lock = take_lock(staging.state_.get());
  if (!lock) return std::unexpected(lock.error());
  staging.lock_ = std::move(*lock);
  Result<UniqueFd> stage =
      make_directory(staging.state_.get(), kStage, "the staging directory .superlifter/stage");
  if (!stage) return std::unexpected(stage.error());
  staging.stage_ = std::move(*stage);
  if (const Status scanned = staging.scan(); !scanned) return std::unexpected(scanned.error());
  return staging;
}

// Collects what an earlier run left.
Status Staging::scan() {
  const Directory stream = open_stream(stage_.get());
  if (stream == nullptr) return fail_errno(errno, "read .superlifter/stage");
  while (const dirent* item = readdir(stream.get())) {
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
    if (!S_ISREG(stat.st_mode)) continue;
    leftovers_.emplace(name.substr(0, dot),
                       Leftover{std::string(name), static_cast<uint64_t>(stat.st_size)});
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
  const auto found =
      leftovers_.find(hash::to_hex(digest.bytes) + "-" + std::to_string(size_bytes));
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

Status remove_tree(int directory_fd, const std::string& name, uint64_t& removed) {
  const auto failed = [](const std::string& what) { return fail_errno(errno, "remove " + escape(what)); };
  const auto is_busy_directory = [] { return errno == EISDIR || errno == EPERM; };
  if (unlinkat(directory_fd, name.c_str(), 0) == 0) {
    ++removed;
    return {};
  }
  if (errno == ENOENT) return {};
  if (!is_busy_directory()) return failed(name);
  struct Level {
    UniqueFd fd;
    std::string name;
    std::vector<std::string> names;  // Left to remove.
  };
  std::vector<Level> levels;
  const auto enter = [&](int parent_fd, const std::string& child) -> Status {
    if (levels.size() >= kMaxDepth) return fail(Errc::kLimit, "remove " + escape(child) + ": too deep");
    Result<UniqueFd> fd = fs::open_directory_at(parent_fd, child);
    if (!fd) return std::unexpected(fd.error());
    const Directory stream = open_stream(fd->get());
    if (stream == nullptr) return failed(child);
    Level level{.fd = std::move(*fd), .name = child, .names = {}};
    while (const dirent* item = readdir(stream.get())) {
      if (!is_dot(item->d_name)) level.names.emplace_back(item->d_name);
    }
    levels.push_back(std::move(level));
    return {};
  };
  if (const Status entered = enter(directory_fd, name); !entered) return entered;
  while (!levels.empty()) {
    Level& level = levels.back();
    if (level.names.empty()) {
      const std::string done = level.name;
      levels.pop_back();
      const int parent_fd = levels.empty() ? directory_fd : levels.back().fd.get();
      if (unlinkat(parent_fd, done.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) return failed(done);
      ++removed;
      continue;
    }
    const std::string child = std::move(level.names.back());
    level.names.pop_back();
    if (unlinkat(level.fd.get(), child.c_str(), 0) == 0) {
      ++removed;
    } else if (is_busy_directory()) {
      if (const Status entered = enter(level.fd.get(), child); !entered) return entered;
    } else if (errno != ENOENT) {
      return failed(child);
    }
  }
  return {};
}

}  // namespace superlifter::client
