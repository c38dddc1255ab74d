// Master: binds, spawns, watches, stops. Never reads a peer's byte.
//
//   master ── worker 0 … N-1   fork and exec of this very program (inheritance.h)
//        └─── indexer
//
// A child that ends is logged with its status and started again after a back-off (100 ms, doubled
// up to 10 s, reset once one has lived for 60 s); a worker's rows of the segment are freed before.
// SIGTERM and SIGINT: the sockets are closed, the children told, and the exit code is 0 when the
// last has ended; a second signal kills them at once. SIGUSR1 asks the indexer to look at all
// modules now.
#pragma once

#include "daemon/settings.h"

namespace superlifter::daemon {

// Runs until it is stopped; the exit code of the process.
int run_master(Settings settings);

}  // namespace superlifter::daemon
