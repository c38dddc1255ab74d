// FileHasher: the second half of a pass. Reads files, several at a time, and makes both digests and
// the signature of each in one read.
//
// Threads take the next file from one shared list by an atomic index. Large files stand first, so
// that no thread is left alone with one at the end. A digest counts only if the open file's stat
// was the same before the first byte and after the last; else the file is read again.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/base/result.h"
#include "core/catalog/indexer.h"
#include "core/catalog/journal.h"
#include "core/catalog/scan.h"
#include "core/catalog/signature_keeper.h"

namespace superlifter::catalog {

// What the scan said of a file and its hashing found otherwise.
struct HashSurprise {
  enum class Kind {
    kChanged,     // Digested, as `stat` says.
    kNoDigest,    // It kept changing or could not be read to its end; as `stat` says.
    kGone,        // Vanished, or no regular file any more.
    kUnreadable,  // Permission refused.
  };
  uint32_t entry = 0;
  Kind kind = Kind::kChanged;
  struct stat stat{};
  int sys_errno = 0;
};

struct HashCounts {
  uint64_t files = 0;  // Digested.
  uint64_t bytes = 0;  // Read.
};

// Where results go; borrowed.
struct HashSinks {
  Journal& journal;
  SignatureKeeper& keeper;
};

struct HashOutcome {
  HashCounts counts;
  std::vector<HashSurprise> surprises;  // In no order.
};

// Digests `files` (entries of `scan`, not hard links) into scan.xxh and scan.sha, makes their
// signatures through the keeper (into scan.signatures), and notes each in the journal. Nothing else
// of the scan is touched; what these said of a file before is gone. kClosed when options.stop was
// set (what is done is in the journal); kIo when this process runs out of fds or memory. `progress`
// is called now and then from the calling thread. Cost per file: open, two fstat, close, one read
// for each MiB.
[[nodiscard]] Result<HashOutcome> hash_files(const IndexOptions& options, Scan& scan,
                                             std::span<const uint32_t> files,
                                             const HashSinks& sinks,
                                             const std::function<void(HashCounts)>& progress);

// Puts large files first and keeps the order otherwise.
void order_for_hashing(const Scan& scan, std::vector<uint32_t>& files);

}  // namespace superlifter::catalog
