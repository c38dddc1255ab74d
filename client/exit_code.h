// Exit codes of the client. The numbers are rsync's where the meaning is the same, so that scripts
// written around rsync (retry on 10, 12, 30 and 35; accept 24) keep working.
#pragma once

#include "core/base/result.h"

namespace superlifter::client {

enum class ExitCode : int {
  kOk = 0,
  kUsage = 1,         // The command line is wrong, or asks for what this build cannot do.
  kIncompatible = 2,  // The peer is not superlifter, or has no protocol version in common with us.
  kStart = 5,         // The server refused to start: unknown module, access denied, still busy.
  kSocketIo = 10,     // Unreachable, refused, reset.
  kFileIo = 11,       // DEST cannot be used: not a directory, read-only, full, in use.
  kStream = 12,       // The protocol stream was cut short or corrupted.
  kInterrupted = 20,  // SIGINT, SIGTERM or SIGHUP.
  kPartial = 23,      // Something could not be transferred or applied; the messages say what.
  kVanished = 24,     // Files changed or vanished at the source while they were being pulled.
  kTimeout = 30,      // The peer was silent for longer than --timeout.
  kConnectTimeout = 35,  // No connection within --contimeout.
};

// What was being done when an Error came up.
enum class Phase {
  kConnect,   // Name lookup and TCP connect.
  kHello,     // Connected; no hello from the server yet.
  kOpen,      // Naming the module (or listing the modules).
  kTransfer,  // Nodes, digests and file contents.
  kLocal,     // DEST, staging, the state of the last pull.
};

// The code for a failure that ends the run.
constexpr ExitCode exit_code_for(Errc code, Phase phase) {
  // The command line is to blame wherever it is noticed.
  if (code == Errc::kConfig) return ExitCode::kUsage;
  if (phase == Phase::kLocal) return code == Errc::kStale ? ExitCode::kVanished : ExitCode::kFileIo;
  if (phase == Phase::kConnect && code == Errc::kTimeout) return ExitCode::kConnectTimeout;
  if (phase == Phase::kConnect && code == Errc::kUnsupported) return ExitCode::kUsage;
  switch (code) {
    case Errc::kTimeout:
      return ExitCode::kTimeout;
    case Errc::kIo:
      return ExitCode::kSocketIo;
    case Errc::kBusy:
      return ExitCode::kStart;
    case Errc::kDenied:
      return phase == Phase::kTransfer ? ExitCode::kPartial : ExitCode::kStart;
    case Errc::kNotFound:
      if (phase == Phase::kConnect) return ExitCode::kSocketIo;  // The name does not resolve.
      return phase == Phase::kTransfer ? ExitCode::kPartial : ExitCode::kStart;
    case Errc::kStale:
    case Errc::kGone:
      return phase == Phase::kTransfer ? ExitCode::kVanished : ExitCode::kStart;
    case Errc::kUnsupported:
      return phase == Phase::kTransfer ? ExitCode::kStream : ExitCode::kIncompatible;
    case Errc::kProtocol:
      return phase == Phase::kHello ? ExitCode::kIncompatible : ExitCode::kStream;
    case Errc::kClosed:
      return phase == Phase::kConnect ? ExitCode::kSocketIo : ExitCode::kStream;
    case Errc::kTruncated:
    case Errc::kCorrupt:
    case Errc::kLimit:
      return ExitCode::kStream;
    case Errc::kConfig:
      break;
  }
  return ExitCode::kUsage;
}
constexpr ExitCode exit_code_for(const Error& error, Phase phase) {
  return exit_code_for(error.code, phase);
}

}  // namespace superlifter::client
