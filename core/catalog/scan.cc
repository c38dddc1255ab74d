#include "core/catalog/scan.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <utility>

#include "core/base/escape.h"
#include "core/base/limits.h"
#include "core/base/log.h"
#include "core/fs/walk.h"

namespace superlifter::catalog {
namespace {

constexpr std::string_view kOwnDirectory = ".superlifter";
constexpr mode_t kReadableByAll = S_IRUSR | S_IRGRP | S_IROTH;
constexpr uint64_t kNamesLogged = 5;
constexpr size_t kPathBytesLogged = 512;
constexpr uint64_t kEntriesPerReport = 4096;
// getpwuid_r's buffer: doubled while it is too small, up to this.
constexpr size_t kMostOwnerBytes = 1 << 20;

LocalStat to_local(const struct stat& stat) {
  LocalStat out;
  out.inode = stat.st_ino;
  out.ctime_s = stat.st_ctim.tv_sec;
  out.ctime_ns = static_cast<uint32_t>(stat.st_ctim.tv_nsec);
  out.device = stat.st_dev;
  return out;
}

IsDirectory is_directory(const struct stat& stat) {
  return S_ISDIR(stat.st_mode) ? IsDirectory::kYes : IsDirectory::kNo;
}

bool matches_any(const std::vector<Glob>& globs, const fs::WalkEntry& entry) {
  const auto matches = [&](const Glob& glob) {
    return glob.matches(entry.path, is_directory(*entry.stat));
  };
  return std::any_of(globs.begin(), globs.end(), matches);
}

// What is never part of a module: our own directory at its root, and the catalog, which would
// change with each pass, where somebody has put it below the root.
class Ours {
 public:
  explicit Ours(int catalog_fd) { known_ = ::fstat(catalog_fd, &catalog_) == 0; }
  bool contains(const fs::WalkEntry& entry) const {
    return entry.path == kOwnDirectory || (known_ && entry.stat->st_ino == catalog_.st_ino &&
                                           entry.stat->st_dev == catalog_.st_dev);
  }

 private:
  struct stat catalog_{};
  bool known_ = false;
};

bool is_stopped(const IndexOptions& options) {
  return options.stop != nullptr && options.stop->load(std::memory_order_relaxed);
}

// Asks the kernel only where the mode bits leave a doubt: most files are readable by all.
bool is_readable(const fs::WalkEntry& entry) {
  if ((entry.stat->st_mode & kReadableByAll) == kReadableByAll) return true;
  return ::faccessat(entry.parent_fd, entry.name, R_OK, AT_EACCESS | AT_SYMLINK_NOFOLLOW) == 0 ||
         errno != EACCES;
}

// The name in an answer of getpwuid_r or getgrgid_r, or the number of an id that has none.
template <class Entry, class Id>
std::string look_up(int (*ask)(Id, Entry*, char*, size_t, Entry**), char* Entry::* name, Id id) {
  std::vector<char> buffer(1024);
  Entry entry{};
  Entry* found = nullptr;
  int failure = 0;
  while ((failure = ask(id, &entry, buffer.data(), buffer.size(), &found)) != 0) {
    if (failure == EINTR) continue;
    if (failure != ERANGE || buffer.size() >= kMostOwnerBytes) break;
    buffer.resize(buffer.size() * 2);
  }
  if (failure == 0 && found != nullptr) {
    const std::string out = found->*name;
    if (!out.empty() && out.size() <= kMaxOwnerNameBytes) return out;
  }
  return std::to_string(id);
}

template <class Id, class Ask>
Result<uint16_t> cached(std::unordered_map<Id, uint16_t>& cache, tree::Table& table, Id id,
                        Ask ask) {
  const auto found = cache.find(id);
  if (found != cache.end()) return found->second;
  const Result<uint16_t> index = table.intern_owner(ask(id));
  if (index) cache.emplace(id, *index);
  return index;
}

Status fill_record(tree::Record& record, const struct stat& stat, Scan& scan,
                   const IndexOptions& options) {
  record.mode = static_cast<uint16_t>(stat.st_mode & 07777);
  record.mtime_s = stat.st_mtim.tv_sec;
  record.mtime_ns = static_cast<uint32_t>(stat.st_mtim.tv_nsec);
  if (S_ISREG(stat.st_mode)) record.size_bytes = static_cast<uint64_t>(stat.st_size);
  if (!options.owners) return {};
  const Result<uint16_t> user = scan.owners.user(scan.table, stat.st_uid);
  if (!user) return std::unexpected(user.error());
  const Result<uint16_t> group = scan.owners.group(scan.table, stat.st_gid);
  if (!group) return std::unexpected(group.error());
  record.owner = *user;
  record.group = *group;
  return {};
}

class Scanner {
 public:
  Scanner(const IndexOptions& options, const Catalog* old, LeftOut& left_out,
          const std::function<void(uint64_t)>& entries_seen)
      : options_(options), old_(old), left_out_(left_out), entries_seen_(entries_seen) {}

  Result<Scan> run() {
    if (old_ != nullptr) {
      const size_t room = old_->table().count() + old_->table().count() / 16;
      out_.table.reserve(room, old_->table().strings().size());
      out_.local.reserve(room);
      out_.xxh.reserve(room);
      out_.sha.reserve(room);
      out_.signatures.reserve(room);
    }
    fs::WalkHandlers handlers;
    handlers.filter = [this](const fs::WalkEntry& entry) { return filter(entry); };
    handlers.entry = [this](const fs::WalkEntry& entry) { return add(entry); };
    handlers.left_out = [this](std::string_view path, const Error& why) {
      left_out_.add(path, why.message);
    };
    const Status walked = fs::walk(options_.root_fd, handlers);
    if (!walked && out_.held_by.empty()) return std::unexpected(walked.error());
    out_.table.finish();
    return std::move(out_);
  }

 private:
  // A directory on the way down: its number, and where we are in its children of the last
  // generation.
  struct Level {
    uint32_t entry = tree::kNoEntry;
    uint32_t old_directory = tree::kNoEntry;
    uint32_t old_cursor = tree::kNoEntry;
  };

  fs::Verdict filter(const fs::WalkEntry& entry) {
    if (is_stopped(options_)) return fs::Verdict::kStop;
    if (ours_.contains(entry)) return fs::Verdict::kSkip;
    // Before the excludes: the marker of a sync is seldom something to serve.
    if (matches_any(options_.hold_while, entry)) {
      out_.held_by = entry.path;
      return fs::Verdict::kStop;
    }
    if (matches_any(options_.exclude, entry)) return fs::Verdict::kSkip;
    if (S_ISREG(entry.stat->st_mode) && !is_readable(entry)) {
      left_out_.add(entry.path, std::strerror(EACCES));
      return fs::Verdict::kSkip;
    }
    return fs::Verdict::kTake;
  }

  Status add(const fs::WalkEntry& entry) {
    const struct stat& stat = *entry.stat;
    tree::Record record;
    record.kind = S_ISDIR(stat.st_mode)   ? tree::Kind::kDirectory
                  : S_ISLNK(stat.st_mode) ? tree::Kind::kSymlink
                                          : tree::Kind::kFile;
    if (const Status filled = fill_record(record, stat, out_, options_); !filled) return filled;
    levels_.resize(entry.depth);
    const uint32_t parent = entry.depth == 0 ? tree::kNoEntry : levels_.back().entry;
    const uint32_t old_entry = find_old(entry);
    LocalStat local = to_local(stat);
    hash::Xxh128 xxh;
    hash::Sha256 sha;
    uint64_t signature = 0;
    if (record.is_file()) {
      const uint32_t first = stat.st_nlink > 1 ? lead(stat) : out_.table.count();
      if (first != out_.table.count()) {
        // One file, one truth: what stat said at its first name holds for all.
        const tree::Record& leader = out_.table.record(first);
        record.link_or_files = first;
        record.size_bytes = leader.size_bytes;
        record.mtime_s = leader.mtime_s;
        record.mtime_ns = leader.mtime_ns;
        record.mode = leader.mode;
        record.owner = leader.owner;
        record.group = leader.group;
        local = out_.local[first];
        xxh = out_.xxh[first];
        sha = out_.sha[first];
        signature = out_.signatures[first];
      } else if (is_unchanged(record, local, old_entry)) {
        xxh = old_->xxh()[old_entry];
        if (!old_->sha().empty()) sha = old_->sha()[old_entry];
        if (sha.known()) signature = signature_of(old_entry);
      }
    }
    const Result<uint32_t> added = out_.table.add(record, parent, entry.name, entry.target);
    if (!added) return std::unexpected(added.error());
    out_.local.push_back(local);
    out_.xxh.push_back(xxh);
    out_.sha.push_back(sha);
    out_.signatures.push_back(signature);
    if (record.is_directory()) {
      const bool matched =
          old_entry != tree::kNoEntry && old_->table().record(old_entry).is_directory();
      levels_.push_back({.entry = *added,
                         .old_directory = matched ? old_entry : tree::kNoEntry,
                         .old_cursor = matched ? old_entry + 1 : tree::kNoEntry});
    }
    if (out_.table.count() % kEntriesPerReport == 0 && entries_seen_) {
      entries_seen_(out_.table.count());
    }
    return {};
  }

  // The entry of the last generation with this path, or kNoEntry.
  uint32_t find_old(const fs::WalkEntry& entry) {
    if (old_ == nullptr) return tree::kNoEntry;
    if (entry.depth == 0) return tree::kRoot;
    Level& level = levels_.back();
    if (level.old_directory == tree::kNoEntry) return tree::kNoEntry;
    const tree::TableView& table = old_->table();
    const uint32_t end = table.end_of(level.old_directory);
    while (level.old_cursor < end && table.name(level.old_cursor) < entry.name) {
      level.old_cursor = table.end_of(level.old_cursor);
    }
    const bool found = level.old_cursor < end && table.name(level.old_cursor) == entry.name;
    return found ? level.old_cursor : tree::kNoEntry;
  }

  // Not the device: its number may be another one after a reboot, and the path has led here.
  bool is_unchanged(const tree::Record& record, const LocalStat& local, uint32_t old_entry) const {
    if (old_entry == tree::kNoEntry) return false;
    const tree::Record& old_record = old_->table().record(old_entry);
    const LocalStat& old_local = old_->local()[old_entry];
    return old_record.is_file() && old_record.size_bytes == record.size_bytes &&
           old_record.mtime_s == record.mtime_s && old_record.mtime_ns == record.mtime_ns &&
           old_local.inode == local.inode && old_local.ctime_s == local.ctime_s &&
           old_local.ctime_ns == local.ctime_ns;
  }

  uint64_t signature_of(uint32_t old_entry) const {
    const std::optional<SignaturePlace> place = old_->signature(old_entry);
    return place ? place->offset : 0;
  }

  // The first entry of this file's group; the number of the next entry when that is the first.
  uint32_t lead(const struct stat& stat) {
    const auto [found, is_new] =
        groups_.try_emplace({stat.st_dev, stat.st_ino}, out_.table.count());
    return found->second;
  }

  struct InodeHash {
    size_t operator()(const std::pair<dev_t, ino_t>& file) const {
      return std::hash<uint64_t>()(file.second * 0x9E37'79B9'7F4A'7C15U + file.first);
    }
  };

  const IndexOptions& options_;
  const Ours ours_{options_.catalog_fd};
  const Catalog* const old_;
  LeftOut& left_out_;
  const std::function<void(uint64_t)>& entries_seen_;
  Scan out_;
  std::vector<Level> levels_;  // levels_[d] is the directory at depth d.
  std::unordered_map<std::pair<dev_t, ino_t>, uint32_t, InodeHash> groups_;
};

// A generation without a pack says nothing of signatures.
bool same_signatures(std::span<const uint64_t> now, std::span<const uint64_t> old) {
  if (!old.empty()) return std::equal(now.begin(), now.end(), old.begin(), old.end());
  return std::all_of(now.begin(), now.end(), [](uint64_t offset) { return offset == 0; });
}

template <class T>
bool same_bytes(std::span<const T> a, std::span<const T> b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

}  // namespace

Result<uint16_t> OwnerNames::user(tree::Table& table, uid_t id) {
  return cached(users_, table, id, [](uid_t user) {
    return look_up<passwd, uid_t>(::getpwuid_r, &passwd::pw_name, user);
  });
}

Result<uint16_t> OwnerNames::group(tree::Table& table, gid_t id) {
  return cached(groups_, table, id, [](gid_t group) {
    return look_up<struct group, gid_t>(::getgrgid_r, &::group::gr_name, group);
  });
}

void LeftOut::add(std::string_view path, const std::string& why) {
  if (++count_ > kNamesLogged) return;
  const bool is_long = path.size() > kPathBytesLogged;
  log_warning("module {}: left out: {}{}: {}", escape(module_),
              escape(path.substr(0, kPathBytesLogged)), is_long ? "…" : "", why);
}

void LeftOut::log_rest() const {
  if (count_ <= kNamesLogged) return;
  log_warning("module {}: left out: {} in all", escape(module_), count_);
}

Result<Scan> scan_module(const IndexOptions& options, const Catalog* old, LeftOut& left_out,
                         const std::function<void(uint64_t)>& entries_seen) {
  return Scanner(options, old, left_out, entries_seen).run();
}

Result<std::string> find_hold(const IndexOptions& options) {
  const Ours ours(options.catalog_fd);
  std::string held_by;
  fs::WalkHandlers handlers;
  handlers.filter = [&](const fs::WalkEntry& entry) {
    if (is_stopped(options)) return fs::Verdict::kStop;
    if (ours.contains(entry)) return fs::Verdict::kSkip;
    if (matches_any(options.hold_while, entry)) {
      held_by = entry.path;
      return fs::Verdict::kStop;
    }
    return matches_any(options.exclude, entry) ? fs::Verdict::kSkip : fs::Verdict::kTake;
  };
  handlers.entry = [](const fs::WalkEntry&) { return Status(); };
  const Status walked = fs::walk(options.root_fd, handlers);
  if (!walked && held_by.empty()) return std::unexpected(walked.error());
  return held_by;
}

Status update_entry(Scan& scan, uint32_t entry, const struct stat& stat,
                    const IndexOptions& options) {
  scan.local[entry] = to_local(stat);
  return fill_record(scan.table.record(entry), stat, scan, options);
}

bool is_group_whole(const Scan& scan, uint32_t hard_link) {
  const LocalStat& own = scan.local[hard_link];
  const LocalStat& first = scan.local[scan.table.view().record(hard_link).link_or_files];
  return own.inode == first.inode && own.device == first.device;
}

Result<Scan> without(const Scan& scan, const std::vector<bool>& drop) {
  const tree::TableView old = scan.table.view();
  Scan out;
  std::vector<uint32_t> numbers(old.count(), tree::kNoEntry);
  std::unordered_map<uint32_t, uint32_t> new_leads;  // By the old number of the lost first entry.
  for (uint32_t entry = 0; entry < old.count(); ++entry) {
    if (drop[entry]) continue;
    tree::Record record = old.record(entry);
    const std::string_view target = record.is_symlink() ? old.target(entry) : std::string_view();
    if (record.is_hard_link()) {
      const uint32_t first = record.link_or_files;
      const uint32_t next = out.table.count();
      uint32_t lead = numbers[first];
      if (drop[first] || !is_group_whole(scan, entry)) {
        lead = new_leads.try_emplace(first, next).first->second;
      }
      record.link_or_files = lead == next ? 0 : lead;
    }
    // Interned anew, in the order in which they are met: the same content gives the same bytes.
    const Result<uint16_t> owner = out.table.intern_owner(old.owner_name(record.owner));
    if (!owner) return std::unexpected(owner.error());
    const Result<uint16_t> group = out.table.intern_owner(old.owner_name(record.group));
    if (!group) return std::unexpected(group.error());
    record.owner = *owner;
    record.group = *group;
    const uint32_t parent = entry == tree::kRoot ? tree::kNoEntry : numbers[record.parent];
    const Result<uint32_t> added = out.table.add(record, parent, old.name(entry), target);
    if (!added) return std::unexpected(added.error());
    numbers[entry] = *added;
    out.local.push_back(scan.local[entry]);
    out.xxh.push_back(scan.xxh[entry]);
    out.sha.push_back(scan.sha[entry]);
    out.signatures.push_back(scan.signatures[entry]);
  }
  out.table.finish();
  return out;
}

bool is_same(const Scan& scan, const Catalog& old) {
  const tree::TableView now = scan.table.view();
  return same_bytes(now.records(), old.table().records()) &&
         now.strings() == old.table().strings() &&
         std::equal(now.owner_names().begin(), now.owner_names().end(),
                    old.table().owner_names().begin(), old.table().owner_names().end()) &&
         same_bytes(std::span<const LocalStat>(scan.local), old.local()) &&
         same_bytes(std::span<const hash::Xxh128>(scan.xxh), old.xxh()) &&
         same_bytes(std::span<const hash::Sha256>(scan.sha), old.sha()) &&
         same_signatures(scan.signatures, old.signature_offsets());
}

}  // namespace superlifter::catalog
