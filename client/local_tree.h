// LocalTree: what DEST holds, compared with the target entry by entry.
//
// One walk through held directory fds, one stat an entry (and, with --delete, one listing a
// directory). A regular file counts as unchanged when its size and mtime are the target's, as
// rsync's quick check; with --checksum only when its content is. The state of the last pull walks
// along: it knows digests, so that what is unchanged needs none from the server.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "client/filter.h"
#include "core/base/result.h"
#include "core/catalog/catalog.h"
#include "core/tree/table.h"

namespace superlifter::client {

// What must be done about an entry. One byte an entry.
enum class Action : uint8_t {
  kNone,       // As it should be.
  kSkip,       // Filtered out; not looked at.
  kFetch,      // File: content must come from the network, or from a local file with its digest.
  kCheck,      // File: the size is right, the time is not (or --checksum): hash it.
  kUnshare,    // File: right content, but a hard link with something it is no link of: copy it.
  kMetadata,   // Mode, time or owner alone.
  kDirectory,  // Make it.
  kSymlink,    // Make it.
  kHardLink,   // Link it to its first entry.
};

struct CompareOptions {
  int destination_fd = -1;                  // Borrowed. -1: nothing is there yet.
  tree::TableView table;                    // The target; borrowed.
  const catalog::Catalog* state = nullptr;  // Of the last pull; null: none. Borrowed.
  const Filter* filter = nullptr;           // Borrowed.
  bool checksum = false;
  bool owner = false;
  bool list_extra = false;  // --delete
  // Directories of ours that we may not read and enter are made so; they count as kMetadata then.
  bool make_accessible = false;
  // Called now and then with the entries done; a failure ends the walk.
  std::function<Status(uint64_t entries)> on_progress;
};

struct Comparison {
  std::vector<Action> actions;            // By entry.
  std::vector<catalog::LocalStat> local;  // By entry; known for what is there and right.
  std::vector<hash::Xxh128> xxh;          // By entry; from the state, for files that it knows.
  std::vector<std::string> extra;   // Paths in DEST that the target does not have (roots only).
  std::vector<std::string> errors;  // One line each: what could not be looked at.
  uint64_t files_unchanged = 0;
};

// kIo when DEST itself cannot be read; on_progress's failure.
[[nodiscard]] Result<Comparison> compare(const CompareOptions& options);

// A stat as it is kept in a generation's local part.
catalog::LocalStat to_local_stat(const struct stat& stat);

}  // namespace superlifter::client
