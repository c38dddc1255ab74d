// Puller: brings a tree, or brings it up to date.
//
//   connect ▶ hello ▶ open ▶ manifest ▶ compare ▶ digests ▶ transfer ▶ links, deletions,
//   directories ▶ state
//              ▲       │                                       │
//     BUSY ────┘       └──────────── files were stale and a newer generation is there ◀┘  (at most
//     twice)
//
// What each entry needs is one byte (local_tree.h), decided before anything is changed. New and
// changed files come first; then symlinks, hard links, metadata; deletions; directories' modes and
// times last, since everything before disturbs them. A run that is killed leaves every file old or
// new, and its successor continues from what lies in staging.
#pragma once

#include <atomic>

#include "client/exit_code.h"
#include "client/options.h"
#include "client/progress.h"
#include "client/stats.h"
#include "core/base/clock.h"

namespace superlifter::client {

struct PullResult {
  ExitCode exit_code = ExitCode::kOk;
  Stats stats;
};

// Runs a whole pull. Failures are told through progress.note, one line each. `stop` is set by a
// signal handler. `out` gets what a dry run would do, one line an entry.
PullResult pull(const PullOptions& options, Progress& progress, Clock& clock,
                const std::atomic<bool>& stop);

}  // namespace superlifter::client
