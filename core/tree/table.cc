#include "core/tree/table.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/base/rel_path.h"

namespace superlifter::tree {

Status TableView::validate() const {
  const auto bad = [](uint32_t entry, const char* what) {
    return fail(Errc::kCorrupt, "entry " + std::to_string(entry) + ": " + what);
  };
  if (records_.empty()) return fail(Errc::kCorrupt, "no root entry");
  const Record& root = records_[kRoot];
  if (!root.is_directory() || root.parent != kNoEntry || root.name_bytes != 0 ||
      root.subtree_entries != count() - 1) {
    return bad(kRoot, "is not a root");
  }
  for (uint32_t entry = 0; entry < count(); ++entry) {
    const Record& record = records_[entry];
    if (record.kind > Kind::kSymlink || record.mode > 07777 || record.mtime_ns > 999'999'999) {
      return bad(entry, "kind, mode or time out of range");
    }
    const uint64_t text_bytes = record.name_bytes + (record.is_symlink() ? record.size_bytes : 0);
    if (record.is_symlink() && record.size_bytes > kMaxSymlinkBytes)
      return bad(entry, "long target");
    if (record.name_offset > strings_.size() || text_bytes > strings_.size() - record.name_offset) {
      return bad(entry, "name outside the strings");
    }
    if (record.owner > owner_names_.size() || record.group > owner_names_.size()) {
      return bad(entry, "unknown owner");
    }
    if (record.subtree_entries > count() - 1 - entry) return bad(entry, "subtree past the end");
    if (!record.is_directory() && record.subtree_entries != 0)
      return bad(entry, "file with children");
    if (record.is_hard_link()) {
      const uint32_t first = record.link_or_files;
      if (first >= entry || !records_[first].is_file() || records_[first].link_or_files != 0) {
        return bad(entry, "hard link to no file before it");
      }
    }
    if (entry == kRoot) continue;
    if (!is_valid_name(name(entry))) return bad(entry, "bad name");
    // Preorder: the entry before is the parent or ends a subtree of a sibling.
    const uint32_t parent = record.parent;
    if (parent >= entry || !records_[parent].is_directory() || end_of(entry) > end_of(parent)) {
      return bad(entry, "parent does not hold it");
    }
    if (parent != entry - 1) {
      uint32_t sibling = entry - 1;
      while (records_[sibling].parent != parent) {
        sibling = records_[sibling].parent;
        if (sibling == kNoEntry || sibling <= parent) return bad(entry, "not in preorder");
      }
      if (end_of(sibling) != entry || name(sibling) >= name(entry))
        return bad(entry, "out of order");
    }
  }
  return {};
}

std::string_view TableView::name(uint32_t entry) const {
  const Record& record = records_[entry];
  return strings_.substr(record.name_offset, record.name_bytes);
}

std::string_view TableView::target(uint32_t entry) const {
  const Record& record = records_[entry];
  CHECK(record.is_symlink());
  return strings_.substr(record.name_offset + record.name_bytes, record.size_bytes);
}

std::string_view TableView::owner_name(uint16_t index) const {
  return index == 0 ? std::string_view() : std::string_view(owner_names_[index - 1U]);
}

std::string TableView::path(uint32_t entry) const {
  size_t length = 0;
  for (uint32_t at = entry; at != kRoot; at = records_[at].parent) {
    length += records_[at].name_bytes + 1U;
  }
  if (length == 0) return {};
  std::string out(length - 1, '/');
  size_t end = length - 1;
  for (uint32_t at = entry; at != kRoot; at = records_[at].parent) {
    const std::string_view part = name(at);
    std::copy(part.begin(), part.end(), out.begin() + static_cast<ptrdiff_t>(end - part.size()));
    if (end > part.size()) end -= part.size() + 1;
  }
  return out;
}

uint32_t TableView::find_child(uint32_t directory, std::string_view wanted) const {
  const uint32_t end = end_of(directory);
  for (uint32_t child = directory + 1; child < end; child = end_of(child)) {
    if (name(child) == wanted) return child;
  }
  return kNoEntry;
}

uint32_t TableView::find(std::string_view path) const {
  uint32_t entry = kRoot;
  while (!path.empty()) {
    const size_t slash = path.find('/');
    entry = find_child(entry, path.substr(0, slash));
    if (entry == kNoEntry) return kNoEntry;
    path = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
  }
  return entry;
}

Totals TableView::totals() const {
  if (records_.empty()) return {};
  const Record& root = records_[kRoot];
  return {.entries = root.subtree_entries, .files = root.link_or_files, .bytes = root.size_bytes};
}

Result<uint32_t> Table::add(Record record, uint32_t parent, std::string_view name,
                            std::string_view target) {
  if (records_.size() >= kMaxEntries) {
    return fail(Errc::kLimit, "tree has more than " + std::to_string(kMaxEntries) + " entries");
  }
  CHECK(name.size() <= kMaxNameBytes && target.size() <= kMaxSymlinkBytes);
  CHECK(records_.empty() == (parent == kNoEntry));
  record.parent = parent;
  record.name_offset = strings_.size();
  record.name_bytes = static_cast<uint16_t>(name.size());
  if (record.is_symlink()) record.size_bytes = target.size();
  strings_ += name;
  strings_ += target;
  records_.push_back(record);
  return static_cast<uint32_t>(records_.size() - 1);
}

Result<uint16_t> Table::intern_owner(std::string_view name) {
  if (name.empty()) return uint16_t{0};
  // Few distinct names per tree, mostly the one seen last: a linear search from the end.
  for (size_t i = owner_names_.size(); i > 0; --i) {
    if (owner_names_[i - 1] == name) return static_cast<uint16_t>(i);
  }
  if (owner_names_.size() >= 0xFFFF) return fail(Errc::kLimit, "more than 65,535 owner names");
  owner_names_.emplace_back(name);
  return static_cast<uint16_t>(owner_names_.size());
}

void Table::finish() {
  for (Record& record : records_) {
    if (!record.is_directory()) continue;
    record.subtree_entries = 0;
    record.link_or_files = 0;
    record.size_bytes = 0;
  }
  for (size_t i = records_.size(); i-- > 1;) {
    const Record& record = records_[i];
    Record& parent = records_[record.parent];
    parent.subtree_entries += record.subtree_entries + 1;
    if (record.is_directory()) {
      parent.link_or_files += record.link_or_files;
      parent.size_bytes += record.size_bytes;
    } else if (record.is_file()) {
      parent.link_or_files += 1;
      if (!record.is_hard_link()) parent.size_bytes += record.size_bytes;
    }
  }
}

void Table::reserve(size_t entries, size_t string_bytes) {
  records_.reserve(entries);
  strings_.reserve(string_bytes);
}

}  // namespace superlifter::tree
