// See connection.h.
#include "daemon/connection.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/base/escape.h"
#include "core/base/limits.h"

namespace superlifter::daemon {
namespace {

// Output that was made before the session ended may still leave: as long as the peer takes some of
// it every kFlushSilenceMs, and kFlushMs at most.
constexpr uint64_t kFlushSilenceMs = 10'000;
constexpr uint64_t kFlushMs = 120'000;
// A peer that was told of the end closes within a round trip or two.
constexpr uint64_t kLingerMs = 2'000;
constexpr uint64_t kLingerBytes = 4 * kMaxRequestPayload;

}  // namespace

Connection::Connection(io::Engine& engine, ConnectionOptions options,
                       std::unique_ptr<session::Store> store, shm::Admission admission,
                       std::function<void(Connection&)> on_closed)
    : engine_(engine),
      options_(std::move(options)),
      store_(std::move(store)),
      admission_(std::move(admission)),
      session_(options_.session, *store_),
      on_closed_(std::move(on_closed)),
      timer_(engine.make_timer([this] { on_timer(); })),
      started_ms_(engine.now_ms()),
      active_ms_(started_ms_) {}

Result<std::unique_ptr<Connection>> Connection::start(io::Engine& engine, ConnectionOptions options,
                                                      ConnectionParts parts,
                                                      std::function<void(Connection&)> on_closed) {
  // Not make_unique: the constructor is private.
  std::unique_ptr<Connection> connection(
      new Connection(engine, std::move(options), std::move(parts.store), std::move(parts.admission),
                     std::move(on_closed)));
  Result<std::unique_ptr<io::Stream>> attached =
      engine.attach(std::move(parts.stream), *connection);
  if (!attached) return std::unexpected(attached.error());
  connection->stream_ = std::move(*attached);
  connection->arm_timer();
  return connection;
}

void Connection::end(wire::Code code) {
  if (state_ != State::kServing || session_.has_ended()) return;
  session_.end(code);
  progress();
}

void Connection::on_bytes(ByteView bytes) {
  active_ms_ = engine_.now_ms();
  if (state_ == State::kServing) {
    session_.feed(bytes);
    progress();
    return;
  }
  lingered_bytes_ += bytes.size();
  if (lingered_bytes_ > kLingerBytes) close();
}

void Connection::on_file(FileReply reply) {
  session_.on_file(std::move(reply));
}

void Connection::on_files_done() {
  active_ms_ = engine_.now_ms();
  progress();
}

void Connection::on_sent() {
  active_ms_ = engine_.now_ms();
  progress();
}

void Connection::on_end() {
  peer_ended_ = true;
  progress();
}

void Connection::on_broken(const Error& error) {
  broken_ = error;
  close();
}

// Moves everything on as far as it goes now. The last call may destroy this object.
void Connection::progress() {
  if (state_ == State::kClosed) return;
  const uint64_t now_ms = engine_.now_ms();
  if (state_ == State::kServing) {
    session_.advance(stream_->outbox());
    std::vector<FileRequest> requests = session_.take_file_requests();
    if (!requests.empty()) stream_->submit(std::move(requests));
    stream_->flush();
    if (session_.has_ended()) {
      state_ = State::kFlushing;
      state_since_ms_ = now_ms;
      stream_->resume_reading();
    } else if (session_.wants_input()) {
      stream_->resume_reading();
    } else {
      stream_->pause_reading();
    }
    // A peer that only shut down its write side still gets what it asked for.
    if (state_ == State::kServing && peer_ended_ && session_.is_idle() &&
        stream_->outbox().empty()) {
      return close();
    }
  }
  count();
  if (state_ == State::kFlushing && stream_->outbox().empty()) {
    state_ = State::kLingering;
    state_since_ms_ = now_ms;
    stream_->finish_output();
  }
  if (state_ == State::kLingering && peer_ended_) return close();
  arm_timer();
}

uint64_t Connection::deadline_ms() const {
  switch (state_) {
    case State::kServing: {
      uint64_t deadline = std::min(active_ms_ + options_.idle_timeout_ms,
                                   started_ms_ + options_.session_timeout_ms);
      if (!session_.hello_done()) {
        deadline = std::min(deadline, started_ms_ + options_.hello_timeout_ms);
      }
      return deadline;
    }
    case State::kFlushing:
      return std::min(active_ms_ + kFlushSilenceMs, state_since_ms_ + kFlushMs);
    default:
      return state_since_ms_ + kLingerMs;
  }
}

// Sets the timer only when it would fire too late: deadlines mostly move away, and on_timer looks
// again, so that a busy connection does not touch its timer at all.
void Connection::arm_timer() {
  if (state_ == State::kClosed) return;
  const uint64_t deadline = deadline_ms();
  if (armed_ms_ != 0 && armed_ms_ <= deadline) return;
  const uint64_t now_ms = engine_.now_ms();
  armed_ms_ = std::max(deadline, now_ms + 1);
  timer_->set(armed_ms_ - now_ms);
}

void Connection::on_timer() {
  armed_ms_ = 0;
  if (state_ == State::kClosed) return;
  if (engine_.now_ms() < deadline_ms()) return arm_timer();
  if (state_ != State::kServing) return close();
  session_.end(wire::Code::kTimeout);
  progress();
}

void Connection::close() {
  if (state_ == State::kClosed) return;
  count();
  state_ = State::kClosed;
  timer_->stop();
  stream_.reset();
  admission_.release();
  // The function must outlive its call, whatever that does to this object.
  const std::function<void(Connection&)> on_closed = std::move(on_closed_);
  on_closed(*this);
}

void Connection::count() {
  if (!admission_.valid() || stream_ == nullptr) return;
  admission_.row().bytes_received.store(session_.counters().bytes_received,
                                        std::memory_order_relaxed);
  admission_.row().bytes_sent.store(stream_->outbox().left_position(), std::memory_order_relaxed);
}

std::string Connection::summary() const {
  const session::Counters& counters = session_.counters();
  std::string how(wire::to_text(session_.outcome()));
  if (!session_.has_ended()) how = broken_ ? broken_->message : "the peer left";
  return fmt::format("session {} module={} end=\"{}\" received={} sent={} files={} stale={} ms={}",
                     options_.peer, session_.module().empty() ? "-" : escape(session_.module()),
                     how, counters.bytes_received,
                     counters.bytes_hello + counters.bytes_manifest + counters.bytes_data +
                         counters.bytes_signature + counters.bytes_other,
                     counters.files_sent, counters.files_stale, engine_.now_ms() - started_ms_);
}

}  // namespace superlifter::daemon
