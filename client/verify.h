// Verify: re-hashes a pulled tree against the generation that its state records, with no network.
#pragma once

#include <atomic>

#include "client/exit_code.h"
#include "client/options.h"
#include "client/progress.h"

namespace superlifter::client {

struct VerifyResult {
  ExitCode exit_code = ExitCode::kOk;  // kPartial when anything differs; kFileIo without a state.
  uint64_t files = 0;                  // Hashed and right.
  uint64_t bytes = 0;
  uint64_t problems = 0;
  uint64_t without_digest = 0;  // Files of which no digest is known: only looked at.
};

// Each difference is told through progress.note, one line each.
VerifyResult verify(const VerifyOptions& options, Progress& progress,
                    const std::atomic<bool>& stop);

}  // namespace superlifter::client
