// Scan: the first half of a pass. Walks a module into a table, with the local part of each entry,
// and takes over the digests that the last generation has of files that did not change.
//
// Old and new table are in the same order, so they are compared as they come: per open directory
// one cursor into the old one, which only moves forward.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/base/result.h"
#include "core/catalog/catalog.h"
#include "core/catalog/indexer.h"
#include "core/hash/digest.h"
#include "core/tree/table.h"

namespace superlifter::catalog {

// Names of users and groups by id, asked for once each. An id without a name is its number.
class OwnerNames {
 public:
  // Index into the table's owner names. kLimit.
  [[nodiscard]] Result<uint16_t> user(tree::Table& table, uid_t id);
  [[nodiscard]] Result<uint16_t> group(tree::Table& table, gid_t id);

 private:
  std::unordered_map<uid_t, uint16_t> users_;
  std::unordered_map<gid_t, uint16_t> groups_;
};

// Counts what is left out, and logs the first few by name.
class LeftOut {
 public:
  explicit LeftOut(std::string module) : module_(std::move(module)) {}
  void add(std::string_view path, const std::string& why);
  uint64_t count() const { return count_; }
  // One line for those beyond the first few.
  void log_rest() const;

 private:
  std::string module_;
  uint64_t count_ = 0;
};

// A tree as it is on disk. By entry number: local, xxh, sha, signatures; digests are zero where
// they are not known, signatures (places in the pack) where there is none.
struct Scan {
  tree::Table table;
  std::vector<LocalStat> local;
  std::vector<hash::Xxh128> xxh;
  std::vector<hash::Sha256> sha;
  std::vector<uint64_t> signatures;
  OwnerNames owners;
  std::string
      held_by;  // Not empty: this path holds the module, and nothing else here means anything.
};

// Walks options.root_fd. `old` may be null. `entries_seen` is called now and then. Table::finish
// has been called on the result. kClosed when stopped; else as fs::walk.
[[nodiscard]] Result<Scan> scan_module(const IndexOptions& options, const Catalog* old,
                                       LeftOut& left_out,
                                       const std::function<void(uint64_t)>& entries_seen);

// The first path that matches options.hold_while, or nothing. Walks the tree once more.
[[nodiscard]] Result<std::string> find_hold(const IndexOptions& options);

// Puts what a newer stat says of a file into its record and local part.
[[nodiscard]] Status update_entry(Scan& scan, uint32_t entry, const struct stat& stat,
                                  const IndexOptions& options);

// Takes out the entries with drop[entry] set (files only), and mends hard-link groups: a later name
// whose first one is gone, or is another file by now, leads its group or follows the next.
[[nodiscard]] Result<Scan> without(const Scan& scan, const std::vector<bool>& drop);

// Whether a hard link's first entry is still the same file.
bool is_group_whole(const Scan& scan, uint32_t hard_link);

// Whether the generation holds this very scan: table, local parts, digests and signatures alike.
bool is_same(const Scan& scan, const Catalog& old);

}  // namespace superlifter::catalog
