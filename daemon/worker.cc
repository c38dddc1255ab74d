// See worker.h.
#include "daemon/worker.h"

#include <errno.h>
#include <fmt/format.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/io/engine.h"
#include "core/wire/codec.h"
#include "daemon/catalog_store.h"
#include "daemon/connection.h"
#include "daemon/control.h"
#include "daemon/peer.h"

namespace superlifter::daemon {
namespace {

// libuv's pool serves files for all connections of a worker; a disk with a queue likes several at
// once, and on a warm cache more than that is only switching.
constexpr const char* kFileThreads = "8";
constexpr uint64_t kRetryAfterMs =
    2'000;                              // Told to a peer that is refused, plus up to as much again.
constexpr uint64_t kRefusalMs = 2'000;  // To take a BUSY before the connection is closed.
constexpr uint64_t kAfterDrainMs = 5'000;  // For the last ERRORs to leave.

// A connection that gets BUSY and nothing else. It is read from until the peer closes, so that the
// peer's hello does not turn our close into a reset that overtakes the BUSY.
class Refusal final : public io::StreamHandler {
 public:
  Refusal(io::Engine& engine, std::function<void(Refusal&)> on_closed)
      : on_closed_(std::move(on_closed)), timer_(engine.make_timer([this] { close(); })) {
    timer_->set(kRefusalMs);
  }
  Refusal(const Refusal&) = delete;
  Refusal& operator=(const Refusal&) = delete;
  ~Refusal() override = default;

  [[nodiscard]] Status start(io::Engine& engine, UniqueFd socket, Bytes frame) {
    Result<std::unique_ptr<io::Stream>> stream =
        engine.attach({std::move(socket), UniqueFd()}, *this);
    if (!stream) return std::unexpected(stream.error());
    stream_ = std::move(*stream);
    stream_->outbox().push(std::move(frame));
    stream_->flush();
    stream_->finish_output();
    return {};
  }

  void on_bytes(ByteView) override {}
  void on_file(FileReply) override {}
  void on_files_done() override {}
  void on_sent() override {}
  void on_end() override { close(); }
  void on_broken(const Error&) override { close(); }

 private:
  void close() {
    timer_->stop();
    stream_.reset();
    if (on_closed_) std::exchange(on_closed_, nullptr)(*this);
  }

  std::function<void(Refusal&)> on_closed_;
  std::unique_ptr<io::Timer> timer_;
  std::unique_ptr<io::Stream> stream_;
};

class Worker final : public io::AcceptHandler {
 public:
  Worker(Inheritance inheritance, io::Engine& engine)
      : inheritance_(std::move(inheritance)),
        config_(inheritance_.settings.config),
        engine_(engine),
        limiter_(inheritance_.segment,
                 {.connections = config_.limits.connections,
                  .connections_per_address = config_.limits.connections_per_address}),
        cache_(config_, clock_, [this](const std::string& module) { report_stale(module); }),
        reaper_(engine.make_timer([this] {
          dead_connections_.clear();
          dead_refusals_.clear();
        })),
        drain_timer_(engine.make_timer([this] { on_drain_deadline(); })) {}
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  ~Worker() override = default;

  [[nodiscard]] Status start();

  void on_accept(UniqueFd socket) override;
  void on_accept_error(const Error& error) override;

 private:
  void serve(UniqueFd socket, const session::Address& peer, shm::Admission admission);
  void refuse(UniqueFd socket);
  void on_connection_closed(Connection& connection);
  void on_control();
  void on_signal();
  void drain(uint64_t within_ms);
  void on_drain_deadline();
  void stop_when_empty();
  void report_stale(const std::string& module);

  Inheritance inheritance_;
  const config::Config& config_;
  io::Engine& engine_;
  SystemClock clock_;
  shm::Limiter limiter_;
  CatalogCache cache_;
  session::Packer packer_;  // Lent to all sessions, one after the other.
  UniqueFd signals_;
  std::unordered_map<Connection*, std::unique_ptr<Connection>> connections_;
  std::unordered_map<Refusal*, std::unique_ptr<Refusal>> refusals_;
  // What has closed, until the loop's next turn: nobody destroys himself while he is being called.
  std::vector<std::unique_ptr<Connection>> dead_connections_;
  std::vector<std::unique_ptr<Refusal>> dead_refusals_;
  std::unique_ptr<io::Timer> reaper_;
  std::unique_ptr<io::Timer> drain_timer_;
  std::minstd_rand jitter_{std::random_device{}()};
  std::optional<uint64_t> busy_logged_ms_;
  bool draining_ = false;
  bool deadline_passed_ = false;
};

Status Worker::start() {
  // SIGTERM drains, as a service manager that signals every process expects; what a terminal sends
  // to the whole group is the master's to decide.
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGTERM);
  sigprocmask(SIG_BLOCK, &mask, nullptr);
  signals_ = UniqueFd(signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_) return fail_errno(errno, "signalfd");
  if (Status watched = engine_.watch(signals_.get(), [this] { on_signal(); }); !watched) {
    return watched;
  }
  if (Status watched = engine_.watch(inheritance_.control.get(), [this] { on_control(); });
      !watched) {
    return watched;
  }
  for (const UniqueFd& fd : inheritance_.listen) {
    if (Status listening = engine_.listen(fd.get(), *this); !listening) return listening;
  }
  ControlMessage ready;
  ready.type = ControlMessage::Type::kReady;
  return send_control(inheritance_.control.get(), ready);
}

void Worker::on_accept(UniqueFd socket) {
  if (draining_) return;
  const std::optional<session::Address> peer = peer_address(socket.get());
  if (!peer) return;  // It is gone already.
  Result<shm::Admission> admission = limiter_.admit(peer->bytes, inheritance_.child.index);
  if (!admission) {
    const uint64_t now_ms = engine_.now_ms();
    if (!busy_logged_ms_ || now_ms - *busy_logged_ms_ >= 1000) {
      busy_logged_ms_ = now_ms;
      log_warning("{} is refused: {}", session::to_text(*peer), admission.error().message);
    }
    refuse(std::move(socket));
    return;
  }
  serve(std::move(socket), *peer, std::move(*admission));
}

void Worker::on_accept_error(const Error& error) {
  log_error("{} ({} connections here)", error.message, connections_.size());
}

void Worker::serve(UniqueFd socket, const session::Address& peer, shm::Admission admission) {
  // A peer whose host is gone must not hold a row until the idle timeout of a long transfer.
  const int on = 1;
  setsockopt(socket.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
  ConnectionOptions options{.session = session_options(config_, packer_),
                            .hello_timeout_ms = config_.limits.hello_timeout_ms,
                            .idle_timeout_ms = config_.limits.idle_timeout_ms,
                            .session_timeout_ms = config_.limits.session_timeout_ms,
                            .peer = session::to_text(peer)};
  auto store = std::make_unique<SessionStore>(cache_, peer, limiter_, admission.row());
  Result<std::unique_ptr<Connection>> connection =
      Connection::start(engine_, std::move(options),
                        {{std::move(socket), UniqueFd()}, std::move(store), std::move(admission)},
                        [this](Connection& closed) { on_connection_closed(closed); });
  if (!connection) {
    log_error("{}: {}", session::to_text(peer), connection.error().message);
    return;
  }
  Connection* const key = connection->get();
  connections_.emplace(key, std::move(*connection));
}

void Worker::refuse(UniqueFd socket) {
  const auto retry_after_ms = static_cast<uint32_t>(kRetryAfterMs + jitter_() % kRetryAfterMs);
  Bytes frame;
  wire::encode(wire::Busy{.reason = wire::Code::kBusy, .retry_after_ms = retry_after_ms}, frame);
  if (refusals_.size() >= config_.limits.queue) {
    // No room even to say no with care: one attempt, and the reset may win.
    send(socket.get(), frame.data(), frame.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    return;
  }
  auto refusal = std::make_unique<Refusal>(engine_, [this](Refusal& closed) {
    const auto found = refusals_.find(&closed);
    dead_refusals_.push_back(std::move(found->second));
    refusals_.erase(found);
    reaper_->set(0);
  });
  Refusal* const key = refusal.get();
  const auto [place, added] = refusals_.emplace(key, std::move(refusal));
  if (!key->start(engine_, std::move(socket), std::move(frame))) refusals_.erase(place);
}

void Worker::on_connection_closed(Connection& connection) {
  log_info("{}", connection.summary());
  const auto found = connections_.find(&connection);
  dead_connections_.push_back(std::move(found->second));
  connections_.erase(found);
  reaper_->set(0);
  stop_when_empty();
}

void Worker::on_control() {
  while (true) {
    const Result<std::optional<ControlMessage>> received =
        receive_control(inheritance_.control.get());
    if (!received) {
      // The master is gone: nobody counts this process any more.
      log_error("control socket: {}", received.error().message);
      engine_.stop();
      return;
    }
    const std::optional<ControlMessage>& message = *received;
    if (!message) return;
    if (message->type == ControlMessage::Type::kDrain) drain(message->drain_ms);
  }
}

void Worker::on_signal() {
  signalfd_siginfo info{};
  while (read(signals_.get(), &info, sizeof(info)) == sizeof(info)) {
    if (!draining_) drain(config_.limits.drain_timeout_ms);
  }
}

// Stops accepting; sessions may end within that time, the ones that have not said hello may not.
void Worker::drain(uint64_t within_ms) {
  if (!draining_) {
    engine_.stop_listening();
    inheritance_.listen.clear();
  }
  draining_ = true;
  std::vector<Connection*> silent;
  for (const auto& [key, connection] : connections_) {
    if (!connection->hello_done()) silent.push_back(key);
  }
  for (Connection* const connection : silent)
    connection->end(wire::Code::kShutdown);
  if (within_ms == 0) {
    on_drain_deadline();
  } else if (!deadline_passed_) {
    drain_timer_->set(within_ms);
  }
  stop_when_empty();
}

void Worker::on_drain_deadline() {
  if (deadline_passed_) {
    // These did not even take their ERROR.
    engine_.stop();
    return;
  }
  deadline_passed_ = true;
  drain_timer_->set(kAfterDrainMs);
  std::vector<Connection*> all;
  all.reserve(connections_.size());
  for (const auto& [key, connection] : connections_)
    all.push_back(key);
  for (Connection* const connection : all)
    connection->end(wire::Code::kShutdown);
}

void Worker::stop_when_empty() {
  if (draining_ && connections_.empty()) engine_.stop();
}

void Worker::report_stale(const std::string& module) {
  const ControlMessage message{
      .type = ControlMessage::Type::kRescan, .drain_ms = 0, .module = module};
  if (Status sent = send_control(inheritance_.control.get(), message); !sent) {
    log_warning("module {}: ask for a rescan: {}", module, sent.error().message);
  }
}

}  // namespace

session::Options session_options(const config::Config& config, session::Packer& packer) {
  return {.motd = config.motd,
          .idle_timeout_ms =
              static_cast<uint32_t>(std::min<uint64_t>(config.limits.idle_timeout_ms, UINT32_MAX)),
          .agent = "superlifterd/" SUPERLIFTER_VERSION,
          .packer = &packer};
}

int run_worker(Inheritance inheritance) {
  const config::Config& config = inheritance.settings.config;
  const uint32_t index = inheritance.child.index;
  start_log(fmt::format("worker {}", index), config.log.level, config.log.format);
  prctl(PR_SET_NAME, fmt::format("superlifter-w{}", index).c_str());
  for (const int number : {SIGINT, SIGHUP, SIGUSR1, SIGUSR2})
    static_cast<void>(signal(number, SIG_IGN));
  setenv("UV_THREADPOOL_SIZE", kFileThreads, /*overwrite=*/0);
  Result<std::unique_ptr<io::Engine>> engine = io::make_uv_engine();
  if (!engine) {
    log_error("{}", engine.error().message);
    return 1;
  }
  // The engine's last file requests borrow root fds of the worker's catalogs, so it must wait for
  // them before those go: a worker does not tear down, it ends. Rows of sessions that were cut off
  // are freed by the master.
  const auto worker = std::make_unique<Worker>(std::move(inheritance), **engine);
  if (Status started = worker->start(); !started) {
    log_error("{}", started.error().message);
    _exit(1);
  }
  log_debug("serving with {}", (*engine)->name());
  (*engine)->run();
  _exit(0);
}

}  // namespace superlifter::daemon
