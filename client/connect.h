// Connect: from a source to a conversation with the module open, with patience: a server that is
// busy or has not indexed the module yet says when to come back, and is asked again a few times
// with jitter.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "client/conversation.h"
#include "client/exit_code.h"
#include "client/manifest.h"
#include "client/options.h"
#include "client/source_uri.h"
#include "core/base/clock.h"

namespace superlifter::client {

// A failure and what was being done.
struct Failure {
  Error error;
  Phase phase = Phase::kConnect;
};

struct ConnectOptions {
  const SourceUri& source;
  const NetworkOptions& network;
  uint64_t bandwidth_bytes_per_s = 0;
  const std::atomic<bool>* stop = nullptr;
  // Told before each wait, a line for people; may be empty.
  std::function<void(const std::string&)> on_wait;
};

struct Connected {
  std::unique_ptr<Conversation> conversation;
  OpenedModule opened;  // Only when the source names a module.
};

// `clock` is borrowed by the conversation.
[[nodiscard]] std::expected<Connected, Failure> connect(const ConnectOptions& options,
                                                        Clock& clock);

}  // namespace superlifter::client
