#include "client/publish.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "client/placement.h"
#include "core/base/escape.h"
#include "core/fs/beneath.h"

namespace superlifter::client {
namespace {

using tree::kRoot;
using tree::Record;

constexpr mode_t kBuildMode = 0700;  // Of a directory while it is filled.

void note(PublishContext& context, uint32_t entry, const std::string& what) {
  const std::string path = context.table.path(entry);
  context.errors.push_back((path.empty() ? "." : escape(path)) + ": " + what);
}

void note_errno(PublishContext& context, uint32_t entry, const std::string& attempt) {
  note(context, entry, attempt + ": " + std::strerror(errno));
}

timespec time_of(const Record& record) {
  return {.tv_sec = record.mtime_s, .tv_nsec = record.mtime_ns};
}

// Sets owner, mode and time of a named entry in place. The mode of a symlink means nothing.
bool set_metadata_at(PublishContext& context, int directory, const std::string& name,
                     uint32_t entry, OwnerIds& ids) {
  const Record& record = context.table.record(entry);
  if (context.owner) {
    const uint32_t user = ids.user(context.table.owner_name(record.owner));
    const uint32_t group = ids.group(context.table.owner_name(record.group));
    const bool any = user != UINT32_MAX || group != UINT32_MAX;
    if (any && fchownat(directory, name.c_str(), user, group, AT_SYMLINK_NOFOLLOW) != 0) {
      note_errno(context, entry, "set the owner");
      return false;
    }
  }
  if (!record.is_symlink()) {
    // fchmodat follows symlinks, so the mode goes through an fd that cannot be one.
    const UniqueFd fd(
        openat(directory, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat stat{};
    const mode_t mode = wanted_mode(record, context.owner);
    if (fd.valid() && fstat(fd.get(), &stat) == 0 && (stat.st_mode & 07777U) != mode &&
        fchmod(fd.get(), mode) != 0) {
      note_errno(context, entry, "set the mode");
      return false;
    }
    // What we may not read has its mode set by name, which follows no symlink either but needs
    // /proc.
    if (!fd.valid() &&
        (errno != EACCES || fchmodat(directory, name.c_str(), mode, AT_SYMLINK_NOFOLLOW) != 0)) {
      note_errno(context, entry, "open to set the mode");
      return false;
    }
  }
  const timespec times[2] = {{.tv_sec = 0, .tv_nsec = UTIME_OMIT}, time_of(record)};
  if (utimensat(directory, name.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) {
    note_errno(context, entry, "set the time");
    return false;
  }
  return true;
}

void keep_local(PublishContext& context, int directory, const std::string& name, uint32_t entry) {
  struct stat stat{};
  if (fstatat(directory, name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) == 0) {
    context.comparison.local[entry] = to_local_stat(stat);
  }
}

// A staged name for something that has no content of its own.
std::string stage_name(PublishContext& context) {
  return context.staging.new_name({}, 0);
}

bool move_into_place(PublishContext& context, const std::string& staged, int directory,
                     const std::string& name, uint32_t entry) {
  const Status placed =
      replace_from_stage(context.staging, staged, directory, name, context.delete_extra);
  if (placed) return true;
  note(context, entry, placed.error().message);
  uint64_t removed = 0;
  static_cast<void>(remove_tree(context.staging.stage_fd(), staged, removed));
  return false;
}

void make_symlink(PublishContext& context, int directory, const std::string& name, uint32_t entry,
                  OwnerIds& ids) {
  const std::string staged = stage_name(context);
  const std::string target(context.table.target(entry));
  if (symlinkat(target.c_str(), context.staging.stage_fd(), staged.c_str()) != 0) {
    return note_errno(context, entry, "make a symlink");
  }
  if (!set_metadata_at(context, context.staging.stage_fd(), staged, entry, ids)) {
    unlinkat(context.staging.stage_fd(), staged.c_str(), 0);
    return;
  }
  if (move_into_place(context, staged, directory, name, entry)) {
    keep_local(context, directory, name, entry);
  }
}

}  // namespace

void make_directories(PublishContext& context) {
  DirectoryCache directories(context.destination_fd, context.table);
  std::vector<bool> is_writable(context.table.count(), false);
  for (uint32_t entry = 1; entry < context.table.count(); ++entry) {
    const Action action = context.comparison.actions[entry];
    if (action == Action::kNone || action == Action::kSkip || action == Action::kMetadata) continue;
    const uint32_t directory = context.table.record(entry).parent;
    if (action != Action::kDirectory && is_writable[directory]) continue;
    const Result<int> parent = directories.get(directory);
    if (!parent) {
      // Of a file it is told when it comes.
      if (action == Action::kDirectory) {
        note(context, entry, "make the directory: " + parent.error().message);
      }
      continue;
    }
    const bool is_ours = !(directory == kRoot && context.is_single_file);
    if (is_ours && !is_writable[directory]) make_accessible(*parent);
    is_writable[directory] = true;
    if (action != Action::kDirectory) continue;
    const std::string name(context.table.name(entry));
    if (mkdirat(*parent, name.c_str(), kBuildMode) == 0) continue;
    if (errno != EEXIST) {
      note_errno(context, entry, "make the directory");
      continue;
    }
    struct stat stat{};
    // It could not be looked at before, or somebody made it meanwhile.
    if (fstatat(*parent, name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(stat.st_mode)) {
      continue;
    }
    // A file or symlink stands in its place: swap it for an empty directory in one step.
    const std::string staged = stage_name(context);
    if (mkdirat(context.staging.stage_fd(), staged.c_str(), kBuildMode) != 0) {
      note_errno(context, entry, "make a staged directory");
      continue;
    }
    move_into_place(context, staged, *parent, name, entry);
  }
}

void make_symlinks(PublishContext& context) {
  DirectoryCache directories(context.destination_fd, context.table);
  OwnerIds ids;
  for (uint32_t entry = 1; entry < context.table.count(); ++entry) {
    const Action action = context.comparison.actions[entry];
    const Record& record = context.table.record(entry);
    const bool metadata = action == Action::kMetadata && !record.is_directory();
    if (action != Action::kSymlink && !metadata) continue;
    const Result<int> parent = directories.get(record.parent);
    if (!parent) {
      note(context, entry, parent.error().message);
      continue;
    }
    const std::string name(context.table.name(entry));
    if (action == Action::kSymlink) {
      make_symlink(context, *parent, name, entry, ids);
    } else if (set_metadata_at(context, *parent, name, entry, ids)) {
      keep_local(context, *parent, name, entry);
    }
  }
}

void make_hard_links(PublishContext& context) {
  DirectoryCache directories(context.destination_fd, context.table);
  for (uint32_t entry = 1; entry < context.table.count(); ++entry) {
    const Record& record = context.table.record(entry);
    const uint32_t first = record.link_or_files;
    // One that is right already has the content of the first, too.
    if (context.comparison.actions[entry] == Action::kNone && record.is_hard_link() &&
        context.comparison.actions[first] != Action::kSkip) {
      context.comparison.xxh[entry] = context.comparison.xxh[first];
    }
    if (context.comparison.actions[entry] != Action::kHardLink) continue;
    if (!context.comparison.local[first].known()) {
      note(context, entry, "hard link to a file that could not be had");
      continue;
    }
    const std::string name(context.table.name(entry));
    const std::string first_name(context.table.name(first));
    const Result<int> first_parent = directories.get(context.table.record(first).parent);
    if (!first_parent) {
      note(context, entry, first_parent.error().message);
      continue;
    }
    struct stat first_stat{};
    if (fstatat(*first_parent, first_name.c_str(), &first_stat, AT_SYMLINK_NOFOLLOW) != 0) {
      note_errno(context, entry, "stat the file to link to");
      continue;
    }
    const std::string staged = stage_name(context);
    if (linkat(*first_parent, first_name.c_str(), context.staging.stage_fd(), staged.c_str(), 0) !=
        0) {
      note_errno(context, entry, "make a hard link");
      continue;
    }
    const Result<int> parent = directories.get(record.parent);
    if (!parent) {
      note(context, entry, parent.error().message);
      continue;
    }
    // rename(2) between two names of one inode does nothing and leaves both.
    struct stat stat{};
    const bool linked = fstatat(*parent, name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) == 0 &&
                        stat.st_ino == first_stat.st_ino && stat.st_dev == first_stat.st_dev;
    if (linked) {
      unlinkat(context.staging.stage_fd(), staged.c_str(), 0);
    } else if (!move_into_place(context, staged, *parent, name, entry)) {
      continue;
    }
    context.comparison.xxh[entry] = context.comparison.xxh[first];
    keep_local(context, *parent, name, entry);
  }
  // Linking moved the ctime of the first names.
  for (uint32_t entry = 1; entry < context.table.count(); ++entry) {
    if (context.comparison.actions[entry] != Action::kHardLink) continue;
    const uint32_t first = context.table.record(entry).link_or_files;
    if (context.comparison.local[entry].known()) {
      context.comparison.local[first] = context.comparison.local[entry];
    }
  }
}

void delete_extra(PublishContext& context, Stats& stats) {
  for (const std::string& text : context.comparison.extra) {
    const Result<RelPath> path = RelPath::parse(text);
    if (!path) continue;
    const auto failed = [&](const Error& error) {
      context.errors.push_back(escape(text) + ": " + error.message);
    };
    const Result<UniqueFd> parent = fs::open_directory(context.destination_fd, path->parent());
    if (!parent) {
      // Gone together with its directory, which something else replaced.
      if (parent.error().code != Errc::kNotFound) failed(parent.error());
      continue;
    }
    make_accessible(parent->get());
    const std::string above(path->parent().text());
    KeepEntry keep;
    if (context.filter != nullptr && !context.filter->empty()) {
      keep = [&](std::string_view below, bool is_directory) {
        const std::string whole =
            above.empty() ? std::string(below) : above + "/" + std::string(below);
        return context.filter->excludes_entry(whole, IsDirectory{is_directory});
      };
    }
    const Status removed =
        remove_tree(parent->get(), std::string(path->name()), stats.files_deleted, keep);
    if (!removed) failed(removed.error());
  }
}

void finish_directories(PublishContext& context) {
  DirectoryCache directories(context.destination_fd, context.table);
  OwnerIds ids;
  // Children first: a directory that becomes read-only must not be needed any more.
  for (uint32_t entry = context.table.count(); entry-- > 0;) {
    const Record& record = context.table.record(entry);
    const bool ours = record.is_directory() && !(entry == kRoot && context.is_single_file) &&
                      context.comparison.actions[entry] != Action::kSkip;
    if (!ours) continue;
    const Result<int> parent = directories.get(entry == kRoot ? kRoot : record.parent);
    if (!parent) continue;  // Making it was reported.
    const std::string name(entry == kRoot ? "." : context.table.name(entry));
    struct stat stat{};
    if (fstatat(*parent, name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (!S_ISDIR(stat.st_mode)) continue;
    const bool right = (stat.st_mode & 07777U) == wanted_mode(record, context.owner) &&
                       stat.st_mtim.tv_sec == record.mtime_s &&
                       stat.st_mtim.tv_nsec == record.mtime_ns && !context.owner;
    if (right || set_metadata_at(context, *parent, name, entry, ids)) {
      keep_local(context, *parent, name, entry);
    }
  }
}

}  // namespace superlifter::client
