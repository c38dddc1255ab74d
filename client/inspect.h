// Inspect: the commands that look at a server without a destination: modules, ls, cat. Output goes
// to stdout; failures are told on stderr by one line.
#pragma once

#include <atomic>

#include "client/exit_code.h"
#include "client/options.h"
#include "core/base/clock.h"

namespace superlifter::client {

// One line a module: name, files, bytes, comment.
ExitCode list_modules(const ModulesOptions& options, Clock& clock, const std::atomic<bool>& stop);

// The entries of a directory, or the one entry that is named: names, with -l as `ls -l` without
// owners, with -R everything beneath, as paths. Names are escaped on a terminal and raw elsewhere.
ExitCode list_entries(const ListOptions& options, Clock& clock, const std::atomic<bool>& stop);

// The content of a file to stdout; its digest is checked at the end (kStream when it is wrong).
ExitCode print_file(const CatOptions& options, Clock& clock, const std::atomic<bool>& stop);

}  // namespace superlifter::client
