// Stats: what a pull did, in numbers. The fields and their names are those of --stats=json, which
// scripts read: a field may be added, none may change its meaning.
#pragma once

#include <cstdint>
#include <string>

namespace superlifter::client {

struct Stats {
  uint64_t files_total = 0;      // Files that the source holds (after the filter).
  uint64_t files_unchanged = 0;  // Already there.
  uint64_t files_fetched = 0;    // Transferred whole, by this run or, up to its end, by one before.
  uint64_t files_patched = 0;    // Rebuilt from an older version and what had changed.
  uint64_t files_refetched = 0;  // Transferred again because the first copy did not verify.
  uint64_t files_mismatched = 0;  // Rebuilt with a wrong digest, and then fetched whole.
  uint64_t files_moved = 0;       // Taken from another name in DEST; no transfer.
  uint64_t files_deleted = 0;     // Removed from DEST, of every kind of entry.
  uint64_t bytes_total = 0;       // Content of files_total.
  uint64_t bytes_received = 0;    // Of all streams, hello and framing included.
  uint64_t bytes_sent = 0;        // The same, the other way.
  uint64_t bytes_manifest = 0;    // Received directory nodes and digests.
  uint64_t bytes_signature = 0;   // Received block signatures.
  uint64_t bytes_literal = 0;     // Received file content.
  uint64_t bytes_matched = 0;     // File content taken from what was in DEST.
  uint64_t generation = 0;        // Of the source.
  std::string root;               // Root digest of the source, lower-case hex.
  double elapsed_s = 0;           // From the start of the command.
  uint64_t stale = 0;             // Files that could not be had because they changed at the source.

  // One JSON object on one line, without a newline; fields in the order above. elapsed_s has
  // milliseconds.
  std::string to_json() const;

  // Several lines for a person, each ended by a newline.
  std::string to_text() const;

  // One line for the end of a pull, without a newline.
  std::string summary() const;
};

}  // namespace superlifter::client
