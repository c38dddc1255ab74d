// Transfer: has every file that needs content built and put in place.
//
//   local jobs (checks, copies, whole leftovers) ──mismatch──┐
//                                                            │
//   files with a basis ─▶ Patcher ──no plan that pays──┐     │
//                            │plan                     ▼     ▼
//                            ▼                        fetch queue ◀── once more, if the digest
//                         literals                         │          was wrong ──┐
//                            └──READ, batched, several in flight──▶ pieces ──▶ Applier ──▶ outcome
//
// Every job ends in one outcome; the transfer ends when all have. The order is the tree's, so that
// neighbours come together. Sums of files that are being matched must not wait behind much content:
// as long as there are such files, few bytes are asked for ahead.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "client/applier.h"
#include "client/conversation.h"
#include "client/local_tree.h"
#include "client/progress.h"
#include "client/staging.h"
#include "client/stats.h"
#include "core/base/result.h"
#include "core/catalog/catalog.h"

namespace superlifter::client {

struct TransferContext {
  Conversation& conversation;
  Applier& applier;
  Staging& staging;
  Progress& progress;
  Stats& stats;
  const tree::TableView& table;
  Comparison& comparison;                   // Actions and digests in; local parts and digests out.
  int destination_fd = -1;                  // Borrowed.
  uint32_t first_entry = 0;                 // Number in the module of the table's entry 0.
  const catalog::Catalog* state = nullptr;  // To find moved files in; may be null.
  unsigned signature_level = 0;             // Finest that the server keeps; 0: no deltas.
  unsigned threads = 1;                     // To match with.
  bool compress = false;                    // Whole files too may come packed.
  bool in_place = false;                    // Files that are here are changed where they are.
};

struct TransferResult {
  std::vector<std::string> errors;  // One line each.
  std::vector<std::string> stale;   // One line each: files that changed at the source.
  bool gone = false;                // The generation was dropped by the server: open the next one.
};

// Runs it. A failure is the connection's, or (kIo with errno, from the applier) the destination's:
// what was finished by then is in place or in staging.
[[nodiscard]] std::expected<TransferResult, std::pair<Error, bool /* local */>> transfer(
    TransferContext& context);

}  // namespace superlifter::client
