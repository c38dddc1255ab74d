#include "client/rebuild.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "core/base/check.h"

namespace superlifter::client {

Status mark_unfinished(int fd) {
  const timespec times[2] = {{.tv_sec = 0, .tv_nsec = UTIME_OMIT}, {.tv_sec = 0, .tv_nsec = 0}};
  if (futimens(fd, times) != 0) return fail_errno(errno, "set the time");
  if (fsync(fd) != 0) return fail_errno(errno, "sync");
  return {};
}

uint64_t file_size(int fd) {
  struct stat stat{};
  return fstat(fd, &stat) == 0 ? static_cast<uint64_t>(stat.st_size) : 0;
}

Rebuild::Rebuild(std::shared_ptr<const delta::Plan> plan,
                 std::shared_ptr<const delta::InPlacePlan> in_place)
    : plan_(std::move(plan)), in_place_(std::move(in_place)) {}

bool Rebuild::needs_staged() const {
  return !target_.valid() || !in_place_->saved.empty() ||
         plan_->copied_bytes() < plan_->target_bytes;
}

Status Rebuild::write_literal(uint64_t offset, ByteView bytes) {
  if (offset > plan_->target_bytes || bytes.size() > plan_->target_bytes - offset) {
    return fail(Errc::kProtocol, "the server sent more bytes than the file has");
  }
  if (const Status written = write_at(staged_.get(), offset, bytes); !written) return written;
  literal_bytes_ += bytes.size();
  if (offset < frontier_.load(std::memory_order_relaxed)) {
    is_out_of_order_.store(true, std::memory_order_relaxed);
  } else {
    frontier_.store(offset + bytes.size(), std::memory_order_release);
  }
  return {};
}

Status Rebuild::copy_ahead(FileCopy& copier) {
  if (const Status copied = copy_from_basis(copier); !copied) return copied;
  return hash_ahead(copier);
}

Status Rebuild::hash_ahead(FileCopy& copier) {
  const uint64_t end = frontier_.load(std::memory_order_acquire);
  if (end <= hashed_bytes_ || is_out_of_order_.load(std::memory_order_relaxed)) return {};
  return hash_to(staged_.get(), end, copier);
}

Status Rebuild::finish(FileCopy& copier) {
  if (target_.valid()) return change_in_place(copier);
  if (const Status copied = copy_from_basis(copier); !copied) return copied;
  if (is_out_of_order_.load(std::memory_order_relaxed)) {
    hasher_.reset();
    hashed_bytes_ = 0;
  }
  return hash_to(staged_.get(), plan_->target_bytes, copier);
}

// What is to be copied from it is there; it may still change, which the digest would tell.
static Status check_basis(int fd, const delta::Plan& plan) {
  const uint64_t size_bytes = file_size(fd);
  const bool is_long_enough =
      std::all_of(plan.copies.begin(), plan.copies.end(),
                  [&](const delta::Copy& copy) { return copy.basis_end() <= size_bytes; });
  if (!is_long_enough) return fail(Errc::kStale, "file is shorter than it was");
  return {};
}

Status Rebuild::copy_from_basis(FileCopy& copier) {
  if (is_copied_) return {};
  if (const Status checked = check_basis(basis_.get(), *plan_); !checked) return checked;
  for (const delta::Copy& copy : plan_->copies) {
    const Status copied = copier.copy(
        basis_.get(), staged_.get(),
        {.from = copy.basis_offset, .to = copy.target_offset, .length_bytes = copy.length_bytes});
    if (!copied) return copied;
  }
  is_copied_ = true;
  basis_.reset();
  return {};
}

Status Rebuild::change_in_place(FileCopy& copier) {
  CHECK(in_place_ != nullptr);
  if (const Status checked = check_basis(target_.get(), *plan_); !checked) return checked;
  for (const delta::Copy& copy : in_place_->saved) {
    const Status saved = copier.copy(
        target_.get(), staged_.get(),
        {.from = copy.basis_offset, .to = copy.target_offset, .length_bytes = copy.length_bytes});
    if (!saved) return saved;
  }
  if (const Status marked = mark_unfinished(target_.get()); !marked) return marked;
  for (const delta::Copy& copy : in_place_->order) {
    const Status moved = copier.move(
        target_.get(),
        {.from = copy.basis_offset, .to = copy.target_offset, .length_bytes = copy.length_bytes});
    if (!moved) return moved;
  }
  std::vector<delta::Range> staged = plan_->literals();
  for (const delta::Copy& copy : in_place_->saved) {
    staged.push_back({.offset = copy.target_offset, .length_bytes = copy.length_bytes});
  }
  for (const delta::Range& range : staged) {
    const Status copied =
        copier.copy(staged_.get(), target_.get(),
                    {.from = range.offset, .to = range.offset, .length_bytes = range.length_bytes});
    if (!copied) return copied;
  }
  if (ftruncate(target_.get(), static_cast<off_t>(plan_->target_bytes)) != 0) {
    return fail_errno(errno, "truncate");
  }
  if (const Status hashed = hash_to(target_.get(), plan_->target_bytes, copier); !hashed) {
    return hashed;
  }
  if (fsync(target_.get()) != 0) return fail_errno(errno, "sync");
  return {};
}

Status Rebuild::hash_to(int fd, uint64_t end, FileCopy& copier) {
  const Status hashed = copier.hash(fd, hashed_bytes_, end - hashed_bytes_, hasher_);
  if (hashed) hashed_bytes_ = end;
  return hashed;
}

}  // namespace superlifter::client
