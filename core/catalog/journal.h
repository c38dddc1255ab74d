// Journal: digests (and places of signatures) that a hashing has made and no generation holds yet,
// so that one that was interrupted need not begin again. FORMAT.md section 4 decides the bytes.
//
// Append-only and trusted record by record: a crash leaves at worst a torn record at the end. A
// journal that cannot be written costs time at the next pass and nothing else, so that is logged,
// never an error.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "core/base/bytes.h"
#include "core/base/file_request.h"
#include "core/base/result.h"
#include "core/base/unique_fd.h"
#include "core/fs/mapped_file.h"
#include "core/hash/digest.h"

namespace superlifter::catalog {

// One file version and what its content digests to.
struct JournalRecord {
  uint64_t device = 0;
  Validators validators;
  hash::Xxh128 xxh;
  hash::Sha256 sha;
  uint64_t pack = 0;       // That holds the content's signature; 0: none was made.
  uint64_t signature = 0;  // Where it begins there. Not to be believed: the write may be lost.
};

class Journal {
 public:
  // Reads what is there below the catalog's directory (borrowed); nothing is made until the first
  // append. kIo when a journal is there and cannot be read.
  [[nodiscard]] static Result<Journal> open(int directory_fd);

  // The record of exactly this version of the file, if there is one. Cost: a binary search.
  std::optional<JournalRecord> find(uint64_t device, const Validators& validators) const;

  // Sound records that were read on open.
  size_t record_count() const { return order_.size(); }
  // The pack that the latest record with a signature names; 0: none does.
  uint64_t last_pack() const { return last_pack_; }

  // Adds a record. From any thread; written out in batches, and by flush().
  void append(const JournalRecord& record);
  void flush();

  // Deletes the file, once its digests are in a generation. Nothing may be appended after.
  void remove();

 private:
  Journal() = default;
  ByteView record_bytes(size_t index) const;
  void write_out(Bytes& pending);

  int directory_fd_ = -1;
  fs::MappedFile file_;          // As it was on open.
  std::vector<uint32_t> order_;  // Sound records by (device, inode); the latest of each.
  uint64_t last_pack_ = 0;
  bool exists_ = false;

  // Guards what append touches; behind a pointer so that a Journal can move before threads use it.
  std::unique_ptr<std::mutex> mutex_ = std::make_unique<std::mutex>();
  Bytes pending_;
  UniqueFd out_;
  bool broken_ = false;  // Writing failed: stop trying.
};

}  // namespace superlifter::catalog
