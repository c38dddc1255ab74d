// Indexer: brings a module's catalog up to date in one pass.
//
//   walk ──▶ compare with the last generation ──▶ hash what changed (several threads) ──▶ publish
//     │                                                                                      ▲
//     └── no generation yet: publish a provisional one at once, then hash ────────────────────┘
//
// The walk goes through held directory fds (fs/walk) and stats each entry once. A file whose inode,
// size, mtime and ctime are as in the last generation keeps its digests unread; every other one is
// read again: ctime is the one stamp that cannot be set back. Nothing changed: nothing is written.
// A hashing that is interrupted leaves its digests in a journal, which the next pass uses.
//
// Signatures (delta/signature.h) are made in the same read and kept by content in a pack
// (signature_pack.h). A file that lacks nothing but its signature, because the finest level has
// changed, the pack is damaged or could not be written, is read again too, but only after the disk
// has set aside the room for all of them: a disk that stays full does not have the whole tree read
// at every pass.
//
// A file that changes while it is read is read again, up to three times; then it enters the
// generation with its stat data and no digest, and the next pass tries again. One that vanishes or
// turns out to be unreadable while it is hashed leaves the generation.
//
// Left out, with a count and a logged name: unreadable files and directories, sockets, fifos,
// devices, paths over 4,095 bytes. Left out in silence: what the exclude patterns match,
// /.superlifter, and the catalog itself where it lies below the root.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/base/glob.h"
#include "core/base/result.h"
#include "core/delta/block_length.h"

namespace superlifter::catalog {

struct IndexReport;

struct IndexOptions {
  std::string module;   // Name; the catalog's sub-directory.
  int root_fd = -1;     // Held root of the module; borrowed.
  int catalog_fd = -1;  // Catalog directory; borrowed.
  std::vector<Glob> exclude;
  std::vector<Glob> hold_while;  // Publishes nothing while a path matches.
  bool owners = false;
  unsigned threads = 1;  // For hashing.
  size_t keep_generations = 4;
  // Finest level of signatures to keep (signature_pack.h, signature_level_within); 0: none.
  unsigned signature_level = delta::kLeafLevel;
  // Set by another thread or a signal handler: ends the pass soon, with kClosed; the journal is
  // kept.
  const std::atomic<bool>* stop = nullptr;
  // Called now and then from the calling thread with what is done so far; may be empty.
  struct Progress {
    uint64_t entries_seen = 0;
    uint64_t files_to_hash = 0;
    uint64_t bytes_to_hash = 0;
    uint64_t files_hashed = 0;
    uint64_t bytes_hashed = 0;
  };
  std::function<void(const Progress&)> on_progress;
  // Called from the calling thread once a provisional generation is live; may be empty.
  std::function<void(const IndexReport&)> on_provisional;
};

struct IndexReport {
  enum class Outcome { kUnchanged, kPublished, kHeld };
  Outcome outcome = Outcome::kUnchanged;
  uint64_t generation = 0;  // The live one after the pass; 0 when held and none existed.
  uint64_t entries = 0;
  uint64_t files = 0;
  uint64_t bytes = 0;
  uint64_t files_hashed = 0;
  uint64_t bytes_hashed = 0;
  uint64_t files_without_digest = 0;  // They kept changing, or reading them failed.
  uint64_t left_out = 0;  // Unreadable, special, too long; excluded ones are not counted.
  // As the live generation has them; 0 while none are kept.
  uint64_t signature_bytes = 0;  // Of the signatures that it uses.
  uint64_t pack_bytes = 0;       // Of the pack that holds them.
  std::string held_by;           // kHeld: the path that matched hold_while.
  double elapsed_s = 0;
};

// One pass. kBusy (another writer), kNotFound (the root was removed), kIo, kLimit, kUnsupported (a
// newer program wrote this catalog), kClosed (stopped). On any of them the last generation stays
// live. Call from one thread. Memory: some 230 bytes an entry beside the last generation's map.
[[nodiscard]] Result<IndexReport> index_module(const IndexOptions& options);

}  // namespace superlifter::catalog
