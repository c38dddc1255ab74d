// Placement: what applying and publishing share: the directories of DEST by held fds, the ids and
// modes that entries get here, and the rename that puts a staged entry into its place.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

#include "client/staging.h"
#include "core/base/result.h"
#include "core/base/unique_fd.h"
#include "core/tree/table.h"

namespace superlifter::client {

// Directories of DEST by entry number, opened beneath the destination and kept open for a while.
// For one thread.
class DirectoryCache {
 public:
  // Borrows both.
  DirectoryCache(int destination_fd, const tree::TableView& table)
      : destination_fd_(destination_fd), table_(table) {}
  // The fd of a directory entry, valid until the next call. kIo, kNotFound.
  [[nodiscard]] Result<int> get(uint32_t directory);
  // Forgets all fds: after directories were replaced.
  void clear() { open_.clear(); }

 private:
  int destination_fd_;
  const tree::TableView& table_;
  std::unordered_map<uint32_t, UniqueFd> open_;
};

// Names of users and groups to ids of this host, looked up once each.
class OwnerIds {
 public:
  // The id, or -1 ("leave it") for an empty or unknown name that is no number either.
  uint32_t user(std::string_view name);
  uint32_t group(std::string_view name);

 private:
  std::unordered_map<std::string, uint32_t> users_;
  std::unordered_map<std::string, uint32_t> groups_;
};

// Moves a staged entry to its place, atomically. What is in the way goes: a file or symlink always,
// an empty directory too, one with content only if `may_remove_directory` (else kIo says so).
[[nodiscard]] Status replace_from_stage(Staging& staging, const std::string& stage_name,
                                        int directory_fd, const std::string& name,
                                        bool may_remove_directory);

// What an entry's permission bits become here: setuid and setgid only with --owner.
uint16_t wanted_mode(const tree::Record& record, bool owner);

}  // namespace superlifter::client
