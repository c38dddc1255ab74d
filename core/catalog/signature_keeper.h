// SignatureKeeper: what a pass does about signatures. It knows which contents have one in the pack,
// so that a renamed, copied or linked file never gets a second, and adds those that are made while
// the hasher reads.
//
//   live generation's contents ─┐                        ┌─ found: its place
//   journal's, after a crash ───┼─▶ index by SHA-256 ──▶ ┤
//   made in this pass ──────────┘                        └─ not: FileSigner's sums go into the pack
//
// Signatures are a help and no must: a pack that cannot be written is logged once and costs those
// that it lacks.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/base/bytes.h"
#include "core/base/result.h"
#include "core/catalog/catalog.h"
#include "core/catalog/journal.h"
#include "core/catalog/scan.h"
#include "core/catalog/signature_pack.h"
#include "core/delta/signature.h"
#include "core/hash/digest.h"

namespace superlifter::catalog {

// Entries by the SHA-256 of their content: of the last generation and of the scan. Holds numbers
// only, 8 bytes a slot and at most half full.
class ContentIndex {
 public:
  // Borrows both; `old` may be null. Room for so many entries in all.
  ContentIndex(const Catalog* old, const Scan& scan, size_t entries);

  void add_old(uint32_t entry);
  // REQUIRES: its SHA-256 and signature stand in the scan and do not change any more.
  void add(uint32_t entry);
  // The place of a content's signature; 0: there is none.
  uint64_t find(const hash::Sha256& sha) const;

 private:
  size_t slot_of(const hash::Sha256& sha) const;
  const hash::Sha256& sha_at(size_t slot) const;

  const Catalog* old_;
  const Scan& scan_;
  uint64_t old_count_ = 0;
  std::vector<uint64_t> slots_;  // 0: free; else 1 + entry, those of the scan after the old ones.
};

class SignatureKeeper {
 public:
  struct Target {
    std::string module;
    int directory_fd = -1;  // Of the module's catalog; borrowed.
    unsigned level = 0;     // Finest to keep; 0: none.
  };

  // What a generation says of its pack.
  struct Summary {
    uint64_t pack = 0;
    uint64_t pack_bytes = 0;
    uint64_t signature_bytes = 0;
    unsigned level = 0;
  };

  // Borrows the scan, and the last generation, which may be null. What the scan took over from it
  // stays when the generation's pack is there and of that level; otherwise the scan's signatures
  // are taken away.
  SignatureKeeper(Target target, const Catalog* old, Scan& scan);
  // An own pack into which nothing was written is removed.
  ~SignatureKeeper();
  SignatureKeeper(const SignatureKeeper&) = delete;
  SignatureKeeper& operator=(const SignatureKeeper&) = delete;

  bool wants(uint64_t file_bytes) const {
    return target_.level != 0 && file_bytes >= least_signed_bytes(target_.level);
  }
  // Whether an entry of the scan should have a signature and has none. Hard links follow their
  // first entry.
  bool lacks(uint32_t entry) const;

  // Whether the scan's signatures stand where the last generation's do.
  bool is_in_old_pack() const {
    return continues_old_ || old_ == nullptr || old_->header().pack == 0;
  }

  // Makes the index, and goes on with the pack of a pass that was interrupted. Before what follows.
  void begin(const Journal& journal);
  // The pack being written; 0: none yet.
  uint64_t pack() const { return pack_.number(); }

  // Takes over what the journal says of an entry's signature, if it is there.
  void take(uint32_t entry, const JournalRecord& record);
  // Gives an entry whose SHA-256 is known the signature that its content has already. Whether it
  // has.
  bool find(uint32_t entry);
  // Sets room aside for the signatures of these files. False, and logged: there is none.
  [[nodiscard]] bool make_room(std::span<const uint32_t> files);

  // From any thread, of an entry that no other thread looks at. Adds a signature that is there
  // whole, unless the content has one: its place, or 0.
  uint64_t keep(uint32_t entry, const Content& content, ByteView sums);
  // The same in pieces: a place to write to with pack_to_write(), then keep_reserved() or
  // release().
  uint64_t reserve(const delta::SignatureLayout& layout);
  const SignaturePack& pack_to_write() const { return pack_; }
  uint64_t keep_reserved(uint32_t entry, const Content& content, uint64_t offset);
  void release(uint64_t offset, const delta::SignatureLayout& layout);
  void fail_with(const Error& error);

  // Brings the pack onto the disk, or a new one where too much of it would be garbage, and takes
  // what could not be written out of the scan. Call when the scan is as it will be published; the
  // index must not be used after.
  Summary settle();
  // Takes everything that this pass added out of the pack and out of the scan: its room is needed.
  // Whether there was anything. settle() comes again.
  bool take_back();

  // Writes out what is pending, so that a journal may name it. When all threads have ended.
  void flush();

 private:
  struct Live {
    uint64_t offset = 0;
    uint32_t entry = 0;
    uint64_t moved_to = 0;
  };

  Content content_of(uint32_t entry) const;
  void enter(uint32_t entry, uint64_t offset);
  void log_failure();
  std::vector<Live> live_signatures() const;
  void collect_garbage(std::vector<Live>& live);

  const Target target_;
  const Catalog* const old_;
  Scan& scan_;
  bool continues_old_ = false;

  std::mutex mutex_;  // Guards what follows while threads hash.
  SignaturePack pack_;
  std::unique_ptr<ContentIndex> index_;  // From begin() to settle().
  bool failure_logged_ = false;
};

// Makes one file's signature while it is read; one a thread. Memory does not grow with the file: up
// to SignaturePack::kSmallBytes are held back, more is written as it comes.
class FileSigner {
 public:
  explicit FileSigner(SignatureKeeper& keeper) : keeper_(keeper) {}
  ~FileSigner() { abandon(); }
  FileSigner(const FileSigner&) = delete;
  FileSigner& operator=(const FileSigner&) = delete;

  // Begins a file of that length; does nothing, and finish() neither, when it is to have none.
  void begin(uint64_t file_bytes);
  void update(ByteView bytes);
  // After the last byte: keeps it as that of the entry, whose SHA-256 this is. Its place, or 0.
  uint64_t finish(uint32_t entry, const hash::Sha256& sha);
  // The file is not what it seemed to be.
  void abandon();

 private:
  [[nodiscard]] Status take(unsigned level, uint64_t first, std::span<const delta::BlockSum> sums);
  void fail_with(const Error& error);

  SignatureKeeper& keeper_;
  delta::SignatureBuilder builder_;
  delta::SignatureLayout layout_;
  uint64_t file_bytes_ = 0;
  bool active_ = false;
  uint64_t reserved_ = 0;  // Place of a large one; 0: it is held in `small_`.
  Bytes small_;
};

}  // namespace superlifter::catalog
