#include "client/local_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <unordered_map>

#include "client/placement.h"
#include "client/staging.h"
#include "core/base/escape.h"
#include "core/fs/beneath.h"

namespace superlifter::client {
namespace {

using tree::kNoEntry;
using tree::kRoot;
using tree::Record;

constexpr uint64_t kProgressEvery = 16'384;  // Entries.
// Open directories of one path; deeper ones are opened again from the root when they are needed.
constexpr size_t kMaxHeldDirectories = 128;

// The walk of compare(): preorder over the target, with the state's children merged alongside.
class Walk {
 public:
  explicit Walk(const CompareOptions& options)
      : options_(options),
        table_(options.table),
        filters_(options.filter != nullptr && !options.filter->empty()) {
    const uint32_t count = table_.count();
    result_.actions.assign(count, Action::kNone);
    result_.local.assign(count, {});
    result_.xxh.assign(count, {});
    for (const Record& record : table_.records()) {
      if (record.is_hard_link()) ++further_names_[record.link_or_files];
    }
  }

  Result<Comparison> run() {
    UniqueFd root_fd;
    result_.actions[kRoot] = Action::kDirectory;
    if (options_.destination_fd >= 0) {
      Result<UniqueFd> root = fs::open_directory(options_.destination_fd, RelPath());
      if (!root) return std::unexpected(root.error());
      struct stat stat{};
      if (fstat(root->get(), &stat) != 0) return fail_errno(errno, "stat the destination");
      result_.actions[kRoot] = metadata_action(stat, table_.record(kRoot));
      result_.local[kRoot] = to_local_stat(stat);
      root_fd = std::move(*root);
    }
    enter(kRoot, std::move(root_fd), options_.state != nullptr ? kRoot : kNoEntry);
    uint32_t entry = 1;
    while (entry < table_.count()) {
      if (entry % kProgressEvery == 0 && options_.on_progress) {
        if (const Status told = options_.on_progress(entry); !told) {
          return std::unexpected(told.error());
        }
      }
      while (levels_.back().end <= entry) {
        leave();
      }
      entry = visit(entry);
    }
    while (!levels_.empty()) {
      leave();
    }
    return std::move(result_);
  }

 private:
  struct Level {
    uint32_t directory = 0;
    uint32_t end = 0;  // First entry after the directory.
    UniqueFd fd;       // Not valid: the directory is not there (yet), or was let go.
    bool exists = false;
    uint32_t state_next = kNoEntry;  // The state's children still to be passed.
    uint32_t state_end = 0;
    size_t path_bytes = 0;
    std::vector<std::string> names;  // list_extra: sorted; what is there.
    size_t next_name = 0;
  };

  void enter(uint32_t directory, UniqueFd fd, uint32_t state_directory) {
    Level level;
    level.directory = directory;
    level.end = table_.end_of(directory);
    level.exists = fd.valid();
    level.fd = std::move(fd);
    level.path_bytes = path_.size();
    if (state_directory != kNoEntry) {
      level.state_next = state_directory + 1;
      level.state_end = options_.state->table().end_of(state_directory);
    }
    if (options_.list_extra && level.exists) list(level);
    levels_.push_back(std::move(level));
    if (levels_.size() > kMaxHeldDirectories) {
      levels_[levels_.size() - 1 - kMaxHeldDirectories].fd.reset();
    }
  }

  void leave() {
    Level& level = levels_.back();
    while (level.next_name < level.names.size()) {
      note_extra(level, level.names[level.next_name++]);
    }
    levels_.pop_back();
    if (!levels_.empty()) path_.resize(levels_.back().path_bytes);
  }

  // Reads the names of a directory for --delete.
  void list(Level& level) {
    UniqueFd fd(openat(level.fd.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    DIR* stream = fd.valid() ? fdopendir(fd.get()) : nullptr;
    if (stream == nullptr) {
      result_.errors.push_back(escape(path_) + ": read the directory: " + std::strerror(errno));
      return;
    }
    static_cast<void>(fd.release());
    while (const dirent* item = readdir(stream)) {
      const std::string_view name(item->d_name);
      if (name == "." || name == "..") continue;
      if (path_.empty() && name == kStateDirectory) continue;
      level.names.emplace_back(name);
    }
    closedir(stream);
    std::sort(level.names.begin(), level.names.end());
  }

  // Passes the listed names up to `name`; those in between are extra.
  void pass_names(Level& level, std::string_view name) {
    while (level.next_name < level.names.size() && level.names[level.next_name] < name) {
      note_extra(level, level.names[level.next_name++]);
    }
    if (level.next_name < level.names.size() && level.names[level.next_name] == name) {
      ++level.next_name;
    }
  }

  void note_extra(Level& level, const std::string& name) {
    std::string path = path_.substr(0, level.path_bytes);
    if (!path.empty()) path += '/';
    path += name;
    if (filters_) {
      struct stat stat{};
      // What cannot be looked at might be a directory that a rule protects.
      if (!reopen(level) ||
          fstatat(level.fd.get(), name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0) {
        return;
      }
      if (options_.filter->excludes_entry(path, IsDirectory{S_ISDIR(stat.st_mode)})) return;
    }
    result_.extra.push_back(std::move(path));
  }

  // The state's entry for the child `name` of the present directory, or kNoEntry.
  uint32_t pass_state(Level& level, std::string_view name) {
    if (level.state_next == kNoEntry) return kNoEntry;
    const tree::TableView& state = options_.state->table();
    while (level.state_next < level.state_end && state.name(level.state_next) < name) {
      level.state_next = state.end_of(level.state_next);
    }
    if (level.state_next >= level.state_end || state.name(level.state_next) != name)
      return kNoEntry;
    const uint32_t found = level.state_next;
    level.state_next = state.end_of(found);
    return found;
  }

  // A directory fd that was let go for depth is opened again.
  bool reopen(Level& level) {
    if (level.fd.valid()) return true;
    const Result<RelPath> path =
        RelPath::parse(std::string_view(path_).substr(0, level.path_bytes));
    if (!path) return false;
    Result<UniqueFd> fd = fs::open_directory(options_.destination_fd, *path);
    if (!fd) return false;
    level.fd = std::move(*fd);
    return true;
  }

  // Looks at one entry; returns the next one to look at.
  uint32_t visit(uint32_t entry) {
    Level& level = levels_.back();
    const Record& record = table_.record(entry);
    const std::string name(table_.name(entry));
    if (options_.list_extra) pass_names(level, name);
    const uint32_t state_entry = pass_state(level, name);
    path_.resize(level.path_bytes);
    if (!path_.empty()) path_ += '/';
    path_ += name;
    if (filters_ && options_.filter->excludes_entry(path_, IsDirectory{record.is_directory()})) {
      std::fill_n(result_.actions.begin() + entry, record.subtree_entries + 1, Action::kSkip);
      return table_.end_of(entry);
    }
    struct stat stat{};
    bool exists = level.exists && reopen(level);
    if (exists && fstatat(level.fd.get(), name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0) {
      exists = false;
      if (errno != ENOENT) {
        result_.errors.push_back(escape(path_) + ": stat: " + std::strerror(errno));
      }
    }
    if (record.is_file() && !follows_leader(record)) inherit_digest(entry, state_entry);
    result_.actions[entry] = decide(entry, exists ? &stat : nullptr);
    const Action action = result_.actions[entry];
    if (action == Action::kNone || action == Action::kMetadata) {
      result_.local[entry] = to_local_stat(stat);
      if (record.is_file()) ++result_.files_unchanged;
    }
    if (!record.is_directory()) return entry + 1;
    UniqueFd fd;
    if (result_.actions[entry] != Action::kDirectory) {
      Result<UniqueFd> opened = options_.make_accessible
                                    ? open_accessible_at(level.fd.get(), name)
                                    : fs::open_directory_at(level.fd.get(), name);
      if (opened) {
        fd = std::move(*opened);
        // The mode that was lifted is set again at the end.
        const bool closed = (stat.st_mode & (S_IRUSR | S_IXUSR)) != (S_IRUSR | S_IXUSR);
        if (closed && options_.make_accessible) make_accessible(fd.get());
        struct stat now{};
        if (closed && fstat(fd.get(), &now) == 0 && now.st_mode != stat.st_mode) {
          result_.actions[entry] = Action::kMetadata;
        }
      } else {
        result_.errors.push_back(escape(path_) + ": " + opened.error().message);
      }
    }
    const bool state_is_directory =
        state_entry != kNoEntry && options_.state->table().record(state_entry).is_directory();
    enter(entry, std::move(fd), state_is_directory ? state_entry : kNoEntry);
    return entry + 1;
  }

  void inherit_digest(uint32_t entry, uint32_t state_entry) {
    if (state_entry == kNoEntry) return;
    const Record& record = table_.record(entry);
    const Record& old = options_.state->table().record(state_entry);
    const bool same = old.is_file() && old.size_bytes == record.size_bytes &&
                      old.mtime_s == record.mtime_s && old.mtime_ns == record.mtime_ns;
    if (same) result_.xxh[entry] = options_.state->xxh()[state_entry];
  }

  Action decide(uint32_t entry, const struct stat* stat) {
    const Record& record = table_.record(entry);
    if (record.is_directory()) {
      if (stat == nullptr || !S_ISDIR(stat->st_mode)) return Action::kDirectory;
      return metadata_action(*stat, record);
    }
    if (record.is_symlink()) return decide_symlink(entry, stat);
    if (follows_leader(record)) return decide_hard_link(record, stat);
    if (stat == nullptr || !S_ISREG(stat->st_mode)) return Action::kFetch;
    if (static_cast<uint64_t>(stat->st_size) != record.size_bytes) return Action::kFetch;
    const bool same_time =
        stat->st_mtim.tv_sec == record.mtime_s && stat->st_mtim.tv_nsec == record.mtime_ns;
    // Setting anything on a file that shares its inode with a stranger would change the stranger.
    const auto further = further_names_.find(entry);
    const bool shared =
        stat->st_nlink > 1 + (further == further_names_.end() ? 0U : further->second);
    if (!same_time || options_.checksum) return shared ? Action::kUnshare : Action::kCheck;
    const Action action = metadata_action(*stat, record);
    return action == Action::kMetadata && shared ? Action::kUnshare : action;
  }

  Action decide_symlink(uint32_t entry, const struct stat* stat) {
    const Record& record = table_.record(entry);
    if (stat == nullptr || !S_ISLNK(stat->st_mode)) return Action::kSymlink;
    if (static_cast<uint64_t>(stat->st_size) != record.size_bytes) return Action::kSymlink;
    char target[kMaxSymlinkBytes + 1];
    const std::string name(table_.name(entry));
    const ssize_t size = readlinkat(levels_.back().fd.get(), name.c_str(), target, sizeof(target));
    if (size < 0 || std::string_view(target, static_cast<size_t>(size)) != table_.target(entry)) {
      return Action::kSymlink;
    }
    // A symlink's mode means nothing on Linux; its time and owner are set in place.
    const bool same_time =
        stat->st_mtim.tv_sec == record.mtime_s && stat->st_mtim.tv_nsec == record.mtime_ns;
    return same_time && has_owner(*stat, record) ? Action::kNone : Action::kMetadata;
  }

  // A hard link to a file that is filtered out is a file of its own.
  bool follows_leader(const Record& record) const {
    return record.is_hard_link() && result_.actions[record.link_or_files] != Action::kSkip;
  }

  Action decide_hard_link(const Record& record, const struct stat* stat) {
    const uint32_t first = record.link_or_files;
    const catalog::LocalStat& leader = result_.local[first];
    const bool linked =
        stat != nullptr && leader.known() && stat->st_ino == leader.inode &&
        stat->st_dev == leader.device &&
        (result_.actions[first] == Action::kNone || result_.actions[first] == Action::kMetadata);
    return linked ? Action::kNone : Action::kHardLink;
  }

  bool has_owner(const struct stat& stat, const Record& record) {
    if (!options_.owner) return true;
    const uint32_t user = ids_.user(table_.owner_name(record.owner));
    const uint32_t group = ids_.group(table_.owner_name(record.group));
    return (user == UINT32_MAX || user == stat.st_uid) &&
           (group == UINT32_MAX || group == stat.st_gid);
  }

  Action metadata_action(const struct stat& stat, const Record& record) {
    const bool same_mode = (stat.st_mode & 07777U) == wanted_mode(record, options_.owner);
    const bool same_time =
        stat.st_mtim.tv_sec == record.mtime_s && stat.st_mtim.tv_nsec == record.mtime_ns;
    return same_mode && same_time && has_owner(stat, record) ? Action::kNone : Action::kMetadata;
  }

  const CompareOptions& options_;
  const tree::TableView& table_;
  const bool filters_;
  Comparison result_;
  std::unordered_map<uint32_t, uint32_t> further_names_;  // Of each hard-link group, by its leader.
  std::vector<Level> levels_;
  std::string path_;  // Of the entry at hand, cut back to a level's path_bytes on the way up.
  OwnerIds ids_;
};

}  // namespace

Result<Comparison> compare(const CompareOptions& options) {
  return Walk(options).run();
}

catalog::LocalStat to_local_stat(const struct stat& stat) {
  return {.inode = stat.st_ino,
          .ctime_s = stat.st_ctim.tv_sec,
          .ctime_ns = static_cast<uint32_t>(stat.st_ctim.tv_nsec),
          .reserved = 0,
          .device = stat.st_dev};
}

}  // namespace superlifter::client
