// Staging: the private directory beside a pulled tree.
//
//   DEST/.superlifter/lock               flock'd while a pull runs; holds the puller's pid
//   DEST/.superlifter/state.generation   the last pull, in the catalog's format
//   DEST/.superlifter/stage/             files being built, same file system as DEST
//
// A staged file whose digest is known beforehand is named by it ("<32 hex>-<size>.<n>") from its
// first byte on and grows from front to back, so a killed run needs no journal: the next one finds
// the whole ones, checks them, and continues the partial ones where they end. A patch that was
// interrupted is begun again, from the basis, which is still in place. Everything else in
// stage/ is left over and removed when the next run begins: a new name never meets an old file.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "core/base/result.h"
#include "core/base/unique_fd.h"
#include "core/hash/digest.h"

namespace superlifter::client {

constexpr std::string_view kStateDirectory = ".superlifter";
constexpr const char* kStateFile = "state.generation";

class Staging {
 public:
  // Makes what is missing below the directory fd (borrowed) and takes the lock. kBusy names the pid
  // that holds it; kIo when DEST cannot be written.
  [[nodiscard]] static Result<Staging> open(int destination_fd);

  ~Staging();
  Staging(Staging&&) noexcept;
  Staging& operator=(Staging&&) noexcept;
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  int state_fd() const { return state_.get(); }  // DEST/.superlifter
  int stage_fd() const { return stage_.get(); }  // DEST/.superlifter/stage

  // A name for a new staged file; unique in this run and among the leftovers.
  std::string new_name(const hash::Xxh128& digest, uint64_t size_bytes);
  // The same for a file that does not grow from front to back: no later run takes it for a front.
  std::string new_patch_name() { return "patch." + std::to_string(next_number_++); }

  // Where such a file is, as a path below DEST.
  static std::string path_of(const std::string& name) {
    return std::string(kStateDirectory) + "/stage/" + name;
  }

  // A file that an earlier run left, whole or in part: its content is to become the one with that
  // digest and size. Each is handed out once; empty name when there is none.
  struct Leftover {
    std::string name;
    uint64_t size_bytes = 0;  // What is there, at most the wanted size.
  };
  Leftover take_leftover(const hash::Xxh128& digest, uint64_t size_bytes);

  // Removes whatever still lies in stage/. Silent: leftovers cost space, nothing else.
  void sweep();
  // Removes stage/, and the state directory too when it holds nothing but the lock.
  void remove();

 private:
  Staging();
  Status scan();

  UniqueFd destination_;  // A duplicate: for remove().
  UniqueFd state_;
  UniqueFd stage_;
  UniqueFd lock_;
  std::multimap<std::string, Leftover> leftovers_;  // By "<hex>-<size>".
  uint64_t next_number_ = 1;
};

// Whether an entry stays; `path` begins with the name that remove_tree was given.
using KeepEntry = std::function<bool(std::string_view path, bool is_directory)>;

// Removes a file, or a directory with everything beneath it, below a directory fd. Never follows a
// symlink, never leaves the tree. No recursion; holds few fds however deep the tree; kLimit beyond
// kMaxDepth levels. ENOENT counts as done. Directories of ours that may not be read or written are
// made so first. `removed` grows by the number of entries. What `keep` wants stays, and so do the
// directories above it.
[[nodiscard]] Status remove_tree(int directory_fd, const std::string& name, uint64_t& removed,
                                 const KeepEntry& keep = {});

// Lets the owner of an open directory read, write and enter it, when that is us, not root, and it
// is not so already. True when its mode was changed.
bool make_accessible(int directory_fd);
// Opens a directory below a directory fd; one of ours that may not be read is made accessible
// first.
[[nodiscard]] Result<UniqueFd> open_accessible_at(int directory_fd, const std::string& name);

}  // namespace superlifter::client
