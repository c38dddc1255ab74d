#include "core/catalog/publisher.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <string_view>

#include "core/base/clock.h"
#include "core/base/escape.h"
#include "core/base/log.h"
#include "core/base/rel_path.h"
#include "core/fs/walk.h"

namespace superlifter::catalog {
namespace {

constexpr const char* kCurrent = "CURRENT";
constexpr const char* kCurrentTemporary = "CURRENT.tmp";
constexpr const char* kLock = "LOCK";
constexpr std::string_view kTemporarySuffix = ".tmp";

void remove_file(int directory_fd, const std::string& name) {
  if (::unlinkat(directory_fd, name.c_str(), 0) == 0 || errno == ENOENT) return;
  log_warning("catalog: remove {}: {}", escape(name), std::strerror(errno));
}

Status write_current(int directory_fd, uint64_t number) {
  const std::string text = std::to_string(number) + "\n";
  UniqueFd fd(::openat(directory_fd, kCurrentTemporary,
                       O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644));
  if (!fd) return fail_errno(errno, "create CURRENT.tmp");
  ssize_t written = 0;
  do {
    written = ::write(fd.get(), text.data(), text.size());
  } while (written < 0 && errno == EINTR);
  // A file this short is written whole or not at all, short of a full disk.
  if (written != static_cast<ssize_t>(text.size())) {
    return fail_errno(written < 0 ? errno : ENOSPC, "write CURRENT.tmp");
  }
  if (::fchmod(fd.get(), 0644) != 0) return fail_errno(errno, "chmod CURRENT.tmp");
  if (::fsync(fd.get()) != 0) return fail_errno(errno, "fsync CURRENT.tmp");
  if (const Status closed = fd.close_checked("close CURRENT.tmp"); !closed) return closed;
  if (::renameat(directory_fd, kCurrentTemporary, directory_fd, kCurrent) != 0) {
    return fail_errno(errno, "rename CURRENT.tmp to CURRENT");
  }
  if (::fsync(directory_fd) != 0) return fail_errno(errno, "fsync catalog directory");
  return {};
}

}  // namespace

Result<uint64_t> read_current(int directory_fd) {
  UniqueFd fd(::openat(directory_fd, kCurrent, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd && errno == ENOENT) return 0;
  if (!fd) return fail_errno(errno, "open CURRENT");
  std::array<char, 32> text{};
  ssize_t size = 0;
  do {
    size = ::read(fd.get(), text.data(), text.size());
  } while (size < 0 && errno == EINTR);
  if (size < 0) return fail_errno(errno, "read CURRENT");
  const uint64_t number = number_of({text.data(), static_cast<size_t>(size)}, "\n");
  if (number == 0) return fail(Errc::kCorrupt, "CURRENT does not hold the number of a generation");
  return number;
}

Result<Publisher> Publisher::open(int catalog_fd, const std::string& module) {
  const std::string attempt = "catalog of module " + escape(module);
  if (!is_valid_name(module)) return fail(Errc::kProtocol, attempt + ": not a file name");
  const bool made = ::mkdirat(catalog_fd, module.c_str(), 0755) == 0;
  if (!made && errno != EEXIST) return fail_errno(errno, attempt + ": make directory");
  Publisher out;
  out.module_ = module;
  out.directory_ = UniqueFd(
      ::openat(catalog_fd, module.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!out.directory_) return fail_errno(errno, attempt + ": open directory");
  // Workers may be other users than the umask has in mind.
  if (made && ::fchmod(out.directory_fd(), 0755) != 0) {
    return fail_errno(errno, attempt + ": chmod directory");
  }
  out.lock_ = UniqueFd(
      ::openat(out.directory_fd(), kLock, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644));
  if (!out.lock_) return fail_errno(errno, attempt + ": open LOCK");
  int locked = 0;
  do {
    locked = ::flock(out.lock_.get(), LOCK_EX | LOCK_NB);
  } while (locked != 0 && errno == EINTR);
  if (locked != 0 && errno == EWOULDBLOCK) {
    std::array<char, 32> holder{};
    const ssize_t size = ::pread(out.lock_.get(), holder.data(), holder.size(), 0);
    const uint64_t pid = size > 0 ? number_of({holder.data(), static_cast<size_t>(size)}, "\n") : 0;
    return fail(Errc::kBusy, attempt + ": being updated by " +
                                 (pid != 0 ? "process " + std::to_string(pid) : "another process"));
  }
  if (locked != 0) return fail_errno(errno, attempt + ": lock");
  // For people and for the message above; the lock itself is the kernel's.
  const std::string pid = std::to_string(::getpid()) + "\n";
  if (::ftruncate(out.lock_.get(), 0) != 0 ||
      ::pwrite(out.lock_.get(), pid.data(), pid.size(), 0) < 0) {
    log_debug("{}: write LOCK: {}", attempt, std::strerror(errno));
  }
  return out;
}

Result<std::shared_ptr<const Catalog>> Publisher::current() const {
  const std::string attempt = "module " + escape(module_);
  const Result<uint64_t> number = read_current(directory_fd());
  if (!number && number.error().code != Errc::kCorrupt) return fail_in(attempt, number.error());
  if (!number) {
    log_error("{}: {}; its catalog is made anew", attempt, number.error().message);
    return nullptr;
  }
  if (*number == 0) return nullptr;
  const std::string name = generation_file_name(*number);
  Result<std::shared_ptr<const Catalog>> catalog =
      Catalog::open(directory_fd(), name, Verify::kEverything);
  if (catalog && (*catalog)->header().generation == *number) return catalog;
  if (!catalog && catalog.error().code == Errc::kUnsupported) {
    return fail_in(attempt, catalog.error());
  }
  if (!catalog && catalog.error().code == Errc::kStale) {
    log_info("{}: {}; its catalog is made anew", attempt, catalog.error().message);
    return nullptr;
  }
  log_error("{}: {}; its catalog is made anew", attempt,
            catalog ? name + " holds another generation's number" : catalog.error().message);
  const std::string aside = std::to_string(*number) + std::string(kDamagedSuffix);
  if (::renameat(directory_fd(), name.c_str(), directory_fd(), aside.c_str()) != 0 &&
      errno != ENOENT) {
    return fail_errno(errno, attempt + ": set " + name + " aside");
  }
  return nullptr;
}

Result<uint64_t> Publisher::publish(Parts parts, size_t keep, uint64_t pack_in_use) {
  const std::string attempt = "publish module " + escape(module_);
  const Result<uint64_t> current_number = read_current(directory_fd());
  const Result<fs::DirectoryNames> names = list_catalog(directory_fd());
  if (!names) return fail_in(attempt, names.error());
  const uint64_t highest =
      std::max({current_number.value_or(0), highest_number(*names, kGenerationSuffix),
                highest_number(*names, kDamagedSuffix)});
  // Where CURRENT is damaged, any of them may have been live.
  const uint64_t before = current_number.value_or(highest);
  if (highest == UINT64_MAX) return fail(Errc::kLimit, attempt + ": no generation number is left");
  const uint64_t number = highest + 1;
  parts.header.generation = number;
  parts.header.created_ns = SystemClock().wall_ns();
  const std::string name = generation_file_name(number);
  if (const Status built = build(directory_fd(), name, parts); !built) {
    return fail_in(attempt, built.error());
  }
  if (const Status swapped = write_current(directory_fd(), number); !swapped) {
    // After a failed fsync the rename may have been made: what CURRENT names must stay.
    if (read_current(directory_fd()).value_or(0) != number) remove_file(directory_fd(), name);
    remove_file(directory_fd(), kCurrentTemporary);
    return fail_in(attempt, swapped.error());
  }
  clean(number, before, keep, pack_in_use);
  return number;
}

// Keeps the live generation and those before it, `keep` in all. A number above `before` that is not
// live was built and never published. Of what was set aside the latest stays.
void Publisher::clean(uint64_t live, uint64_t before, size_t keep, uint64_t pack_in_use) const {
  const Result<fs::DirectoryNames> names = list_catalog(directory_fd());
  if (!names) {
    log_warning("module {}: clean up: {}", escape(module_), names.error().message);
    return;
  }
  std::vector<uint64_t> generations;
  std::vector<uint64_t> damaged;
  for (size_t i = 0; i < names->count(); ++i) {
    const std::string_view name = names->name(i);
    if (name.ends_with(kTemporarySuffix)) remove_file(directory_fd(), std::string(name));
    if (const uint64_t number = number_of(name, kDamagedSuffix); number != 0) {
      damaged.push_back(number);
    }
    const uint64_t number = number_of(name, kGenerationSuffix);
    if (number == 0 || number == live) continue;
    if (number > before) {
      remove_file(directory_fd(), std::string(name));
    } else {
      generations.push_back(number);
    }
  }
  std::sort(generations.begin(), generations.end(), std::greater<>());
  const size_t kept = std::min(std::max<size_t>(keep, 1) - 1, generations.size());
  for (size_t i = kept; i < generations.size(); ++i) {
    remove_file(directory_fd(), generation_file_name(generations[i]));
  }
  generations.resize(kept);
  generations.push_back(live);
  clean_packs(*names, generations, pack_in_use);
  std::sort(damaged.begin(), damaged.end(), std::greater<>());
  for (size_t i = 1; i < damaged.size(); ++i) {
    remove_file(directory_fd(), std::to_string(damaged[i]) + std::string(kDamagedSuffix));
  }
}

void Publisher::clean_packs(const fs::DirectoryNames& names, const std::vector<uint64_t>& kept,
                            uint64_t pack_in_use) const {
  std::vector<uint64_t> named{pack_in_use};
  for (const uint64_t generation : kept) {
    const Result<uint64_t> pack =
        read_pack_number(directory_fd(), generation_file_name(generation));
    if (pack) {
      named.push_back(*pack);
    } else if (pack.error().code != Errc::kCorrupt && pack.error().code != Errc::kNotFound) {
      // Which pack it needs is not known: better a file too many.
      log_warning("module {}: clean up packs: {}", escape(module_), pack.error().message);
      return;
    }
  }
  for (size_t i = 0; i < names.count(); ++i) {
    const uint64_t number = number_of(names.name(i), kPackSuffix);
    if (number == 0 || std::find(named.begin(), named.end(), number) != named.end()) continue;
    remove_file(directory_fd(), std::string(names.name(i)));
  }
}

}  // namespace superlifter::catalog
