// Table: a whole tree as one flat array in preorder.
//
// An entry's number is its place in the array: 0 is the root, a directory is followed by everything
// beneath it, names of one directory come in bytewise order. So a subtree is a range of numbers, a
// sibling is one addition away, and a million entries are two allocations. The catalog stores the
// arrays as they stand and maps them back; the client plans on the same form.
//
//   number   0    1     2       3      4
//   path     ""   bin   bin/ls  bin/x  doc          bin.subtree_entries == 2
//
// TableView borrows (a mapped file or a Table); Table owns and grows.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/bytes.h"
#include "core/base/limits.h"
#include "core/base/result.h"

namespace superlifter::tree {

enum class Kind : uint8_t { kFile = 0, kDirectory = 1, kSymlink = 2 };

constexpr uint32_t kNoEntry = 0xFFFF'FFFF;
constexpr uint32_t kRoot = 0;

// One entry. Stored in generation files as it stands: 56 bytes, little-endian, no padding.
struct Record {
  // File: bytes of content. Directory: bytes of content beneath it, each hard-link group counted
  // once, at its first path. Symlink: bytes of its target.
  uint64_t size_bytes = 0;
  int64_t mtime_s = 0;
  uint64_t name_offset = 0;  // Into the strings: the name; a symlink's target follows it at once.
  uint32_t mtime_ns = 0;
  uint32_t parent = kNoEntry;  // kNoEntry for the root alone.
  uint32_t subtree_entries =
      0;  // Entries beneath this one, not counting itself; 0 but for directories.
  // File: number of the first entry of its hard-link group when this is a later one, else 0.
  // Directory: regular files beneath it.
  uint32_t link_or_files = 0;
  uint16_t name_bytes = 0;
  uint16_t mode = 0;   // Permission bits with setuid, setgid and sticky: 07777.
  uint16_t owner = 0;  // Into the owner names; 0: not recorded.
  uint16_t group = 0;
  Kind kind = Kind::kFile;
  uint8_t reserved[7] = {};

  bool is_directory() const { return kind == Kind::kDirectory; }
  bool is_file() const { return kind == Kind::kFile; }
  bool is_symlink() const { return kind == Kind::kSymlink; }
  // A file that is a further name of an earlier entry: it has no content of its own to transfer.
  bool is_hard_link() const { return is_file() && link_or_files != 0; }
};
static_assert(sizeof(Record) == 56);

struct Totals {
  uint64_t entries = 0;  // All but the root.
  uint64_t files = 0;    // Regular files, hard links included.
  uint64_t bytes = 0;    // Their content, each hard-link group once.

  friend bool operator==(const Totals&, const Totals&) = default;
};

class TableView {
 public:
  TableView() = default;
  // Borrows. owner_names[i] is the name of Record::owner or group i + 1.
  TableView(std::span<const Record> records, std::string_view strings,
            std::span<const std::string> owner_names)
      : records_(records), strings_(strings), owner_names_(owner_names) {}

  // Checks every number, offset and order in the arrays, so that all functions below are total.
  // kCorrupt names the first entry that breaks a rule. Cost: one pass, no allocation that grows.
  [[nodiscard]] Status validate() const;

  // Entries with the root. 0 only for an empty view.
  uint32_t count() const { return static_cast<uint32_t>(records_.size()); }
  const Record& record(uint32_t entry) const { return records_[entry]; }
  std::span<const Record> records() const { return records_; }
  std::string_view strings() const { return strings_; }
  std::span<const std::string> owner_names() const { return owner_names_; }

  // Views into the strings. REQUIRES: entry < count(); target: a symlink.
  std::string_view name(uint32_t entry) const;
  std::string_view target(uint32_t entry) const;
  // Owner or group name by Record::owner; empty for 0.
  std::string_view owner_name(uint16_t index) const;

  // The path from the root, without a leading slash; empty for the root. One allocation.
  std::string path(uint32_t entry) const;

  // First child: entry + 1, if the directory is not empty. The entry after this one's subtree:
  uint32_t end_of(uint32_t entry) const { return entry + 1 + records_[entry].subtree_entries; }

  // The child of a directory with that name, or kNoEntry. Cost: linear in the directory's children.
  uint32_t find_child(uint32_t directory, std::string_view wanted) const;
  // The entry with that path ("" is the root), or kNoEntry.
  uint32_t find(std::string_view path) const;

  Totals totals() const;

 private:
  std::span<const Record> records_;
  std::string_view strings_;
  std::span<const std::string> owner_names_;
};

class Table {
 public:
  // An empty table; add the root first.
  Table() = default;

  // Appends an entry in preorder and returns its number. The record's name_offset, name_bytes and
  // parent are set here; the target is a symlink's. kLimit beyond kMaxEntries.
  // REQUIRES: parent is an open directory: every entry since it lies beneath it.
  [[nodiscard]] Result<uint32_t> add(Record record, uint32_t parent, std::string_view name,
                                     std::string_view target = {});

  // Index for Record::owner and group; the same name gives the same index. kLimit beyond 65,535.
  [[nodiscard]] Result<uint16_t> intern_owner(std::string_view name);

  // Fills subtree_entries, and the directories' sums, from the parents. Call once, after the last
  // add.
  void finish();

  Record& record(uint32_t entry) { return records_[entry]; }
  uint32_t count() const { return static_cast<uint32_t>(records_.size()); }
  void reserve(size_t entries, size_t string_bytes);

  // Borrows from this table until it changes.
  TableView view() const { return {records_, strings_, owner_names_}; }

 private:
  std::vector<Record> records_;
  std::string strings_;
  std::vector<std::string> owner_names_;
};

}  // namespace superlifter::tree
