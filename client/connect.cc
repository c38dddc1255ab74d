#include "client/connect.h"

#include <poll.h>

#include <algorithm>
#include <random>
#include <utility>

#include "client/transport.h"
#include "core/base/escape.h"

namespace superlifter::client {
namespace {

constexpr unsigned kAttempts = 8;
constexpr uint64_t kMostWaitMs = 30'000;
constexpr uint64_t kLookMs = 100;  // How often a wait looks whether it is to stop.

// Waits about that long; the jitter keeps clients that were refused together from coming back
// together.
void wait_jittered(uint64_t wait_ms, const std::atomic<bool>* stop) {
  std::minstd_rand random(std::random_device{}());
  wait_ms = std::min(wait_ms, kMostWaitMs);
  uint64_t left_ms = wait_ms + random() % (wait_ms / 2 + 1);
  while (left_ms > 0 && (stop == nullptr || !stop->load())) {
    const uint64_t part_ms = std::min(left_ms, kLookMs);
    poll(nullptr, 0, static_cast<int>(part_ms));
    left_ms -= part_ms;
  }
}

// One attempt. retry_after_ms is set when coming back later can succeed.
std::expected<Connected, Failure> attempt(const ConnectOptions& options, Clock& clock,
                                          Transport& transport, uint32_t& retry_after_ms) {
  Result<io::ByteStream> stream = transport.connect();
  if (!stream) return std::unexpected(Failure{stream.error(), Phase::kConnect});
  Connected connected;
  Result<std::unique_ptr<Conversation>> conversation =
      Conversation::start(std::move(*stream),
                          {.peer = transport.name(),
                           .timeout_ms = options.network.timeout_ms,
                           .bandwidth_bytes_per_s = options.bandwidth_bytes_per_s,
                           .stop = options.stop},
                          clock, retry_after_ms);
  if (!conversation) return std::unexpected(Failure{conversation.error(), Phase::kHello});
  connected.conversation = std::move(*conversation);
  if (options.source.module.empty()) return connected;
  Result<OpenedModule> opened = open_module(*connected.conversation, options.source.module,
                                            options.network.max_entries, retry_after_ms);
  if (!opened) return std::unexpected(Failure{opened.error(), Phase::kOpen});
  connected.opened = std::move(*opened);
  return connected;
}

}  // namespace

std::expected<Connected, Failure> connect(const ConnectOptions& options, Clock& clock) {
  Result<std::unique_ptr<Transport>> transport =
      make_transport(options.source, options.network.connect_timeout_ms);
  if (!transport) return std::unexpected(Failure{transport.error(), Phase::kConnect});
  for (unsigned tried = 1;; ++tried) {
    uint32_t retry_after_ms = 0;
    std::expected<Connected, Failure> connected =
        attempt(options, clock, **transport, retry_after_ms);
    const bool again = !connected && connected.error().error.code == Errc::kBusy &&
                       retry_after_ms > 0 && tried < kAttempts;
    if (!again) return connected;
    if (options.on_wait) options.on_wait(connected.error().error.message);
    wait_jittered(retry_after_ms, options.stop);
    if (options.stop != nullptr && options.stop->load()) return connected;
  }
}

}  // namespace superlifter::client
