// Rebuild: one target file made from a basis and literals: the file work of a patch, without the
// threads and the queues (applier.h).
//
//   aside      staged file  ◀── literals, as they come, where they belong
//                           ◀── copies from the basis
//              then all of it is read once, from front to back: the digest
//
//   in place   staged file  ◀── literals, as they come, where they belong
//              then, once all are there:
//              target  bytes that a copy would destroy too early saved in the staged file ─▶
//                      marked as unfinished ─▶ copies inside it, in order ─▶ literals and saved
//                      bytes from the staged file ─▶ cut to its length ─▶ read once: the digest
//                      ─▶ fsync
//
// Hashing runs ahead: what is complete from the front on may be hashed while literals still come.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "client/file_copy.h"
#include "core/base/bytes.h"
#include "core/base/result.h"
#include "core/base/unique_fd.h"
#include "core/delta/in_place.h"
#include "core/delta/plan.h"
#include "core/hash/digest.h"

namespace superlifter::client {

// Marks a file in DEST that is going to be changed in place: its time becomes the epoch, on the
// disk before any of its content can. Writing then gives it the present time; either way no quick
// check takes it for the target. kIo.
[[nodiscard]] Status mark_unfinished(int fd);

// Size of an open file; 0 when it cannot be had.
uint64_t file_size(int fd);

class Rebuild {
 public:
  // `plan` is kept; `in_place`, if not null, belongs to it.
  Rebuild(std::shared_ptr<const delta::Plan> plan,
          std::shared_ptr<const delta::InPlacePlan> in_place);

  // The files. `staged` is a new, empty one, needed before the first literal and before the work
  // that uses it; `basis` (aside) and `target` (in place) before any copy.
  bool has_staged() const { return staged_.valid(); }
  void set_staged(UniqueFd fd) { staged_ = std::move(fd); }
  bool has_basis() const { return basis_.valid(); }
  void set_basis(UniqueFd fd) { basis_ = std::move(fd); }
  void set_target(UniqueFd fd) { target_ = std::move(fd); }
  bool is_in_place() const { return target_.valid(); }
  // Whether anything has to be staged.
  bool needs_staged() const;
  const delta::Plan& plan() const { return *plan_; }

  // Writes a literal. kProtocol when it lies beyond the target's end, kIo. The only call that may
  // run at the same time as a work, on one thread.
  [[nodiscard]] Status write_literal(uint64_t offset, ByteView bytes);
  uint64_t literal_bytes() const { return literal_bytes_; }
  // How much could be hashed, and how much is. For the thread that writes literals.
  uint64_t frontier() const { return frontier_.load(std::memory_order_relaxed); }

  // Works: one at a time, on any thread. kStale: the basis is not what it was, or cannot be read;
  // kClosed; kIo: the destination.
  [[nodiscard]] Status copy_ahead(FileCopy& copier);  // Aside only.
  [[nodiscard]] Status hash_ahead(FileCopy& copier);  // Behind copy_ahead().
  // All that is left. REQUIRES: all literals were written.
  [[nodiscard]] Status finish(FileCopy& copier);

  // After a work.
  uint64_t hashed_bytes() const { return hashed_bytes_; }
  bool is_copied() const { return is_copied_; }
  // After finish(): the digest, and the rebuilt file's fd.
  hash::Xxh128 digest() const { return hasher_.digest(); }
  UniqueFd take_built() { return std::move(target_.valid() ? target_ : staged_); }

 private:
  Status copy_from_basis(FileCopy& copier);
  Status change_in_place(FileCopy& copier);
  Status hash_to(int fd, uint64_t end, FileCopy& copier);

  const std::shared_ptr<const delta::Plan> plan_;
  const std::shared_ptr<const delta::InPlacePlan> in_place_;
  UniqueFd basis_;
  UniqueFd staged_;
  UniqueFd target_;
  uint64_t literal_bytes_ = 0;  // The literals' thread only.
  // End of the literal that came last: below it, all literals were written, if they come in order.
  // Release and acquire: what is hashed was written before.
  std::atomic<uint64_t> frontier_ = 0;
  // A literal came behind the frontier: what was hashed ahead counts for nothing.
  std::atomic<bool> is_out_of_order_ = false;
  bool is_copied_ = false;
  hash::Xxh128Hasher hasher_;
  uint64_t hashed_bytes_ = 0;
};

}  // namespace superlifter::client
