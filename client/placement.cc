#include "client/placement.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/fs.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <utility>
#include <vector>

#include "core/base/rel_path.h"
#include "core/fs/beneath.h"

namespace superlifter::client {
namespace {

constexpr size_t kMaxOpenDirectories = 64;  // Per thread.
constexpr uint16_t kSetIdBits = 06000;

uint32_t numeric_id(std::string_view name) {
  uint32_t id = UINT32_MAX;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), id);
  return error == std::errc() && end == name.data() + name.size() ? id : UINT32_MAX;
}

}  // namespace

Result<int> DirectoryCache::get(uint32_t directory) {
  const auto found = open_.find(directory);
  if (found != open_.end()) return found->second.get();
  const Result<RelPath> path = RelPath::parse(table_.path(directory));
  if (!path) return std::unexpected(path.error());
  Result<UniqueFd> fd = fs::open_directory(destination_fd_, *path);
  if (!fd) return std::unexpected(fd.error());
  if (open_.size() >= kMaxOpenDirectories) open_.clear();
  return open_.emplace(directory, std::move(*fd)).first->second.get();
}

uint32_t OwnerIds::user(std::string_view name) {
  if (name.empty()) return UINT32_MAX;
  const auto [found, is_new] = users_.try_emplace(std::string(name), UINT32_MAX);
  if (!is_new) return found->second;
  passwd entry{};
  passwd* result = nullptr;
  std::vector<char> buffer(16 << 10);
  if (getpwnam_r(found->first.c_str(), &entry, buffer.data(), buffer.size(), &result) == 0 &&
      result != nullptr) {
    found->second = result->pw_uid;
  } else {
    found->second = numeric_id(name);
  }
  return found->second;
}

uint32_t OwnerIds::group(std::string_view name) {
  if (name.empty()) return UINT32_MAX;
  const auto [found, is_new] = groups_.try_emplace(std::string(name), UINT32_MAX);
  if (!is_new) return found->second;
  struct group entry{};
  struct group* result = nullptr;
  std::vector<char> buffer(64 << 10);
  if (getgrnam_r(found->first.c_str(), &entry, buffer.data(), buffer.size(), &result) == 0 &&
      result != nullptr) {
    found->second = result->gr_gid;
  } else {
    found->second = numeric_id(name);
  }
  return found->second;
}

uint16_t wanted_mode(const tree::Record& record, bool owner) {
  return owner ? record.mode : static_cast<uint16_t>(record.mode & ~kSetIdBits);
}

Status replace_from_stage(Staging& staging, const std::string& stage_name, int directory_fd,
                          const std::string& name, bool may_remove_directory) {
  const auto rename_it = [&](unsigned flags) {
    return renameat2(staging.stage_fd(), stage_name.c_str(), directory_fd, name.c_str(), flags) ==
           0;
  };
  if (rename_it(0)) return {};
  if (errno != EISDIR && errno != ENOTEMPTY && errno != EEXIST && errno != ENOTDIR) {
    return fail_errno(errno, "rename into place");
  }
  // A directory is in the way of something else, or something else in the way of a directory.
  if (unlinkat(directory_fd, name.c_str(), AT_REMOVEDIR) == 0 && rename_it(0)) return {};
  struct stat stat{};
  if (fstatat(directory_fd, name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0) {
    return fail_errno(errno, "stat");
  }
  if (S_ISDIR(stat.st_mode) && !may_remove_directory) {
    return fail(Errc::kIo,
                "is a directory with content here and something else at the source: "
                "remove it, or pull with --delete and without a filter, to replace it");
  }
  // One atomic swap, then the old content goes from staging.
  uint64_t removed = 0;
  if (rename_it(RENAME_EXCHANGE)) return remove_tree(staging.stage_fd(), stage_name, removed);
  // File systems without the swap.
  if (const Status gone = remove_tree(directory_fd, name, removed); !gone) return gone;
  if (!rename_it(0)) return fail_errno(errno, "rename into place");
  return {};
}

}  // namespace superlifter::client
