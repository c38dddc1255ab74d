// Connection: joins one Session, one Stream, its timers and its row in the segment.
//
//   peer ──on_bytes──▶ session.feed ─┐
//   pool ──on_file───▶ session ──────┼─▶ progress(): advance ─▶ outbox ─▶ flush ─▶ peer
//   peer takes output ──on_sent──────┘               └─ file requests ─▶ submit ─▶ pool
//
//   kServing ──session has ended──▶ kFlushing ──outbox empty──▶ kLingering ──peer closes──▶ kClosed
//      └───────────────── stream broke, peer left, deadline ────────────────────────────────▲
//
// Lingering: the write side is shut down and input is thrown away for a moment, because closing a
// socket with unread input resets it, and the reset may overtake the last ERROR.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/base/result.h"
#include "core/io/engine.h"
#include "core/session/session.h"
#include "core/session/store.h"
#include "core/shm/limiter.h"
#include "core/wire/message.h"

namespace superlifter::daemon {

struct ConnectionOptions {
  session::Options session;
  uint64_t hello_timeout_ms = 10'000;
  uint64_t idle_timeout_ms = 60'000;  // No byte either way.
  uint64_t session_timeout_ms = uint64_t{4} * 3600'000;
  std::string peer;  // For the log: an address, or "stdio".
};

// What one connection owns.
struct ConnectionParts {
  io::ByteStream stream;
  std::unique_ptr<session::Store> store;
  shm::Admission admission;  // Its row in shared memory.
};

class Connection final : public io::StreamHandler {
 public:
  // Begins to serve. Takes the parts over; borrows the engine, which outlives this.
  // `on_closed` is called once, from the loop, as the last thing this object does of its own
  // accord; it may destroy it. kIo when the fds cannot be waited for.
  [[nodiscard]] static Result<std::unique_ptr<Connection>> start(
      io::Engine& engine, ConnectionOptions options, ConnectionParts parts,
      std::function<void(Connection&)> on_closed);
  ~Connection() override = default;
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Ends the session with a code: ERROR goes out, then the stream closes. Nothing happens to one
  // that is ending already.
  void end(wire::Code code);

  bool hello_done() const { return session_.hello_done(); }
  const session::Session& session() const { return session_; }
  // One line for the log: who, what, how much, how it ended.
  std::string summary() const;

  void on_bytes(ByteView bytes) override;
  void on_file(FileReply reply) override;
  void on_files_done() override;
  void on_sent() override;
  void on_end() override;
  void on_broken(const Error& error) override;

 private:
  enum class State { kServing, kFlushing, kLingering, kClosed };

  Connection(io::Engine& engine, ConnectionOptions options, std::unique_ptr<session::Store> store,
             shm::Admission admission, std::function<void(Connection&)> on_closed);

  void progress();
  void on_timer();
  void arm_timer();
  uint64_t deadline_ms() const;
  void close();
  void count();

  io::Engine& engine_;
  const ConnectionOptions options_;
  std::unique_ptr<session::Store> store_;
  shm::Admission admission_;
  session::Session session_;
  std::function<void(Connection&)> on_closed_;
  std::unique_ptr<io::Timer> timer_;
  std::unique_ptr<io::Stream> stream_;  // Last: it is told to go before what it calls.
  State state_ = State::kServing;
  bool peer_ended_ = false;
  std::optional<Error> broken_;
  uint64_t started_ms_;
  uint64_t active_ms_;           // Last byte either way.
  uint64_t state_since_ms_ = 0;  // kFlushing, kLingering.
  uint64_t lingered_bytes_ = 0;
  uint64_t armed_ms_ = 0;  // When the timer fires; 0: it is not set.
};

}  // namespace superlifter::daemon
