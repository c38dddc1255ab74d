// TargetTree: a small tree for tests, as a table with its content, and as files on the disk.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/check.h"
#include "core/hash/digest.h"
#include "core/tree/table.h"
#include "tests/support/temp_tree.h"

namespace superlifter::tests {

class TargetTree {
 public:
  static constexpr int64_t kMtimeSeconds = 1'000'000'000;
  static constexpr uint32_t kMtimeNanoseconds = 123'456'789;

  TargetTree() { add(tree::Kind::kDirectory, tree::kNoEntry, "", 0755); }

  // Entries are added in preorder, the names of a directory in bytewise order. Each returns the
  // entry's number.
  uint32_t directory(uint32_t parent, std::string_view name, uint16_t mode = 0755) {
    return add(tree::Kind::kDirectory, parent, name, mode);
  }
  uint32_t file(uint32_t parent, std::string_view name, std::string_view content,
                uint16_t mode = 0644) {
    const uint32_t entry = add(tree::Kind::kFile, parent, name, mode, {}, content.size());
    contents_[entry] = content;
    xxh_.back() = hash::xxh128(as_bytes(content));
    return entry;
  }
  uint32_t symlink(uint32_t parent, std::string_view name, std::string_view target) {
    return add(tree::Kind::kSymlink, parent, name, 0777, target);
  }
  uint32_t hard_link(uint32_t parent, std::string_view name, uint32_t first) {
    const tree::Record leader = table_.record(first);
    const uint32_t entry =
        add(tree::Kind::kFile, parent, name, leader.mode, {}, leader.size_bytes, first);
    contents_[entry] = contents_.at(first);
    xxh_.back() = xxh_[first];
    return entry;
  }

  // After the last entry.
  void finish() { table_.finish(); }
  tree::Table& table() { return table_; }
  tree::TableView view() const { return table_.view(); }
  const std::vector<hash::Xxh128>& xxh() const { return xxh_; }
  const hash::Xxh128& digest(uint32_t entry) const { return xxh_[entry]; }
  const std::string& content(uint32_t entry) const { return contents_.at(entry); }
  const std::map<uint32_t, std::string>& contents() const { return contents_; }

  // Puts an entry on the disk as the table says; directories above it must be there.
  void place(const TempTree& where, uint32_t entry) const {
    const tree::Record& record = view().record(entry);
    const std::string path = where.path(view().path(entry));
    if (record.is_directory()) {
      if (entry != tree::kRoot) CHECK(mkdir(path.c_str(), 0700) == 0);
    } else if (record.is_symlink()) {
      CHECK(::symlink(std::string(view().target(entry)).c_str(), path.c_str()) == 0);
    } else if (record.is_hard_link()) {
      CHECK(link(where.path(view().path(record.link_or_files)).c_str(), path.c_str()) == 0);
    } else {
      where.write(view().path(entry), contents_.at(entry));
    }
    if (!record.is_directory()) set_metadata(where, entry);
  }
  void place_all(const TempTree& where) const {
    for (uint32_t entry = 0; entry < view().count(); ++entry) {
      place(where, entry);
    }
    set_directories(where);
  }
  // Gives the directories their modes and times, children first.
  void set_directories(const TempTree& where) const {
    for (uint32_t entry = view().count(); entry-- > 0;) {
      if (view().record(entry).is_directory()) set_metadata(where, entry);
    }
  }
  void set_metadata(const TempTree& where, uint32_t entry) const {
    const tree::Record& record = view().record(entry);
    const std::string path = where.path(view().path(entry));
    if (!record.is_symlink()) CHECK(chmod(path.c_str(), record.mode) == 0);
    const timespec times[2] = {{.tv_sec = 0, .tv_nsec = UTIME_OMIT},
                               {.tv_sec = record.mtime_s, .tv_nsec = record.mtime_ns}};
    CHECK(utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW) == 0);
  }

 private:
  uint32_t add(tree::Kind kind, uint32_t parent, std::string_view name, uint16_t mode,
               std::string_view target = {}, uint64_t size_bytes = 0, uint32_t first = 0) {
    tree::Record record;
    record.kind = kind;
    record.mode = mode;
    record.mtime_s = kMtimeSeconds;
    record.mtime_ns = kMtimeNanoseconds;
    record.size_bytes = size_bytes;
    record.link_or_files = first;
    const Result<uint32_t> entry = table_.add(record, parent, name, target);
    CHECK(entry.has_value());
    xxh_.emplace_back();
    return *entry;
  }

  tree::Table table_;
  std::vector<hash::Xxh128> xxh_;
  std::map<uint32_t, std::string> contents_;  // Of files, by entry.
};

}  // namespace superlifter::tests
