// Worker: one engine, one thread: accepts from the shared sockets and serves until the master tells
// it to drain or is gone. Reads modules and catalogs, writes nothing but its own rows of the
// segment.
#pragma once

#include "config/config.h"
#include "core/session/session.h"
#include "daemon/inheritance.h"

namespace superlifter::daemon {

// Runs to the end; the exit code of the process.
int run_worker(Inheritance inheritance);

// What both the worker and stdio mode tell every session.
session::Options session_options(const config::Config& config, session::Packer& packer);

}  // namespace superlifter::daemon
