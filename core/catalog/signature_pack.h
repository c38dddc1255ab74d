// SignaturePack: the append-only file that holds a module's signatures, each by the content that it
// is of. FORMAT.md section 5 decides the bytes.
//
//   header │ checksum sums │ checksum sums │ (reserved, being written) │ checksum sums │ …
//
// Nothing in the file says where a signature begins: generations and the journal do. So a small
// file's signature costs 4 bytes beside its sums, and what a crash leaves is garbage that nobody
// looks at. Why no headers: with the content's SHA-256 in each they would have doubled the cost of
// files of a few kilobytes.
//
// A server's workers only ever pread a pack: nothing that is in it can harm them.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "core/base/bytes.h"
#include "core/base/result.h"
#include "core/base/unique_fd.h"
#include "core/delta/signature.h"
#include "core/hash/digest.h"

namespace superlifter::catalog {

// Files shorter than this have no signature at that finest level: fewer than two blocks would find
// nothing that the digest does not.
constexpr uint64_t least_signed_bytes(unsigned level) {
  return std::max(delta::kLeastSignedBytes, 2 * delta::block_length_bytes(level));
}

// The finest level whose signatures, and the garbage beside them, stay within `share` of the
// content; 0: none does.
unsigned signature_level_within(double share);

// Opens pack `number` below a module's catalog directory for reading. kNotFound; kCorrupt when it
// is shorter than `least_bytes` or does not begin as a pack of that number and level; kIo.
[[nodiscard]] Result<UniqueFd> open_pack(int directory_fd, uint64_t number, unsigned level,
                                         uint64_t least_bytes);

// What a signature is of.
struct Content {
  hash::Sha256 sha;
  uint64_t size_bytes = 0;
};

// The writing end: the indexer's alone. Offsets are those of a signature's sums, as generations
// hold them. The first failed write is remembered, and every later call that writes fails with it.
// append(), reserve(), release(), flush() and settle() by one thread at a time; write(), finish()
// and holds() from any, at the same time.
class SignaturePack {
 public:
  // A pack of signatures up to this size is written in batches.
  static constexpr size_t kSmallBytes = 64 << 10;

  // A pack that comes into being, with a number of its own, with its first signature. Borrows the
  // directory.
  SignaturePack(int directory_fd, unsigned level);
  // Opens an existing pack to be continued. Errors as open_pack.
  [[nodiscard]] static Result<SignaturePack> open(int directory_fd, uint64_t number, unsigned level,
                                                  uint64_t least_bytes);

  unsigned level() const { return level_; }
  uint64_t number() const { return number_; }  // 0: no file yet.
  uint64_t size_bytes() const { return end_; }
  delta::SignatureLayout layout(const Content& content) const {
    return {content.size_bytes, level_};
  }

  // Sets disk space aside for so many bytes more, or fails with kIo: then not even a try is worth
  // it, and nothing is remembered.
  [[nodiscard]] Status make_room(uint64_t bytes);

  // Adds a signature that is there whole. REQUIRES: as long as the content's layout says.
  [[nodiscard]] Result<uint64_t> append(const Content& content, ByteView sums);

  // Sets a place apart for a signature that comes in pieces.
  [[nodiscard]] Result<uint64_t> reserve(const delta::SignatureLayout& layout);
  // REQUIRES: within a place that was reserved.
  [[nodiscard]] Status write(uint64_t at, ByteView bytes) const;
  // All pieces are written: makes it a signature of that content.
  [[nodiscard]] Status finish(uint64_t offset, const Content& content) const;
  // The reserved place is not needed after all: given back once nothing but such places follows it,
  // else garbage.
  void release(uint64_t offset, const delta::SignatureLayout& layout);

  // Remembers a failure of write() or finish().
  void fail_with(const Error& error);

  // Whether a signature of that content stands at the offset, whole. Any offset may be asked.
  bool holds(uint64_t offset, const Content& content) const;

  // Copies a signature out of another pack of the same level: its new offset, or nothing when it is
  // damaged there. Errors are those of writing.
  [[nodiscard]] Result<std::optional<uint64_t>> copy(const SignaturePack& from, uint64_t offset,
                                                     const Content& content);

  // Brings everything that was added onto the disk and gives back room that is not needed. What
  // then stands at lost_from() and beyond is not there: writing it failed.
  void settle();
  uint64_t lost_from() const { return lost_from_; }
  const std::optional<Error>& failure() const { return failure_; }

  // Writes out what is pending, so that a journal may name it, and cuts off what was released; a
  // failure is remembered. REQUIRES: no reserved place is being written to.
  void flush();

  // Cuts off what was added since the pack was opened (or removes one that is new). Whether there
  // was anything.
  bool take_back();

  // Deletes the file.
  void remove();

 private:
  [[nodiscard]] Status create();
  [[nodiscard]] Status write_pending();
  [[nodiscard]] Status checksum_of(uint64_t offset, const Content& content,
                                   std::array<uint8_t, 4>& checksum) const;
  std::string named() const;

  int directory_fd_ = -1;
  unsigned level_ = 0;
  uint64_t number_ = 0;
  UniqueFd fd_;
  uint64_t trusted_ = 0;               // So many bytes are on the disk for certain.
  uint64_t end_ = 0;                   // Of what is written, pending or reserved.
  Bytes pending_;                      // The last bytes before end_, not written yet.
  std::map<uint64_t, uint64_t> gaps_;  // Released places, beginnings by ends.
  uint64_t lost_from_ = UINT64_MAX;
  std::optional<Error> failure_;
};

}  // namespace superlifter::catalog
