// Control: the messages between the master and a child, over one SOCK_SEQPACKET pair a child, so
// that a message is whole or not there. Either end sees the other's death as the end of the stream.
//
//   master ──▶ worker    kDrain: stop accepting, let sessions end within drain_ms
//   master ──▶ indexer   kRescan: look at a module (or all) for changes; kStop
//   worker ──▶ master    kReady: it accepts
//                        kRescan: a served file was found changed; passed on to the indexer
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "core/base/result.h"
#include "core/base/unique_fd.h"

namespace superlifter::daemon {

struct ControlMessage {
  enum class Type : uint32_t { kDrain = 1, kRescan = 2, kStop = 3, kReady = 4 };
  Type type = Type::kStop;
  uint32_t drain_ms = 0;  // kDrain
  std::string module;     // kRescan: empty for all, at once.

  friend bool operator==(const ControlMessage&, const ControlMessage&) = default;
};

// Both ends, non-blocking and close-on-exec.
[[nodiscard]] Result<std::pair<UniqueFd, UniqueFd>> make_control_pair();

// Never waits: kBusy when the other end does not keep up, kClosed when it is gone.
[[nodiscard]] Status send_control(int fd, const ControlMessage& message);

// The next message, or nothing when none waits. kClosed at the end of the stream, kCorrupt, kIo.
[[nodiscard]] Result<std::optional<ControlMessage>> receive_control(int fd);

}  // namespace superlifter::daemon
