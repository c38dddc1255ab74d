// See master.h. libuv's process handles do the fork, the exec and the waiting; nothing of the loop
// crosses the exec.
#include "daemon/master.h"

#include <errno.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>
#include <uv.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/base/log.h"
#include "core/shm/limiter.h"
#include "core/shm/segment.h"
#include "daemon/control.h"
#include "daemon/inheritance.h"
#include "daemon/listener.h"

namespace superlifter::daemon {
namespace {

constexpr uint64_t kFirstBackOffMs = 100;
constexpr uint64_t kLongestBackOffMs = 10'000;
constexpr uint64_t kStableMs = 60'000;  // A child that lived so long starts with a short back-off.
constexpr uint64_t kKillAfterMs = 15'000;  // Beyond the drain: what hangs then is killed.
constexpr uint64_t kReadyMs = 5'000;  // Before "listening" is said although a worker is not ready.
constexpr uint64_t kSpareFds = 256;   // A worker's own, beside connections and their files.

template <class Handle>
uv_handle_t* as_handle(Handle* handle) {
  return reinterpret_cast<uv_handle_t*>(handle);
}

class Master;

// A place for one child; it outlives the processes that fill it, one after the other.
struct Child {
  Master* master = nullptr;
  ChildOptions options;
  std::string name;  // "worker 2"
  uv_process_t process{};
  uv_poll_t control_poll{};
  uv_timer_t restart{};
  UniqueFd control;  // Our end.
  bool running = false;
  int open_handles = 0;  // Of process and control_poll, while they close.
  uint64_t started_ms = 0;
  uint64_t back_off_ms = kFirstBackOffMs;
};

class Master {
 public:
  explicit Master(Settings settings) : settings_(std::move(settings)), config_(settings_.config) {}
  Master(const Master&) = delete;
  Master& operator=(const Master&) = delete;
  ~Master();

  [[nodiscard]] Status start();
  int run();

 private:
  void announce();
  void raise_file_limit() const;
  void watch_signal(uv_signal_t& handle, int number);
  void add_child(ChildRole role, uint32_t index);
  void spawn(Child& child);
  [[nodiscard]] Status try_spawn(Child& child);
  void on_exit(Child& child, int64_t status, int signal_number);
  void on_handle_closed(Child& child);
  void restart_later(Child& child);
  void on_control(Child& child);
  void on_signal(int number);
  void stop(int number);
  void kill_children();
  void stop_when_alone();
  void tell_indexer(const ControlMessage& message);

  Settings settings_;
  const config::Config& config_;
  std::vector<Listener> listeners_;
  std::optional<shm::Segment> segment_;
  UniqueFd settings_fd_;
  uv_loop_t loop_{};
  bool loop_started_ = false;
  uv_signal_t sigterm_{};
  uv_signal_t sigint_{};
  uv_signal_t sighup_{};
  uv_signal_t sigusr1_{};
  uv_timer_t kill_timer_{};
  uv_timer_t ready_timer_{};
  unsigned waiting_for_ = 0;  // Workers that are not ready yet; counts down once.
  bool announced_ = false;
  std::vector<std::unique_ptr<Child>> children_;
  bool stopping_ = false;
};

Status Master::start() {
  raise_file_limit();
  if (Status made = make_catalog_directory(config_); !made) return made;
  if (config_.listen.size() > kMaxListenSockets) {
    return fail(Errc::kConfig, fmt::format("listen: {} addresses: expected at most {}",
                                           config_.listen.size(), kMaxListenSockets));
  }
  Result<std::vector<Listener>> listeners = bind_all(config_.listen);
  if (!listeners) return std::unexpected(listeners.error());
  listeners_ = std::move(*listeners);
  Result<shm::Segment> segment =
      shm::Segment::create(std::clamp<uint32_t>(config_.limits.connections, 1, shm::kMaxRows));
  if (!segment) return std::unexpected(segment.error());
  segment_.emplace(std::move(*segment));
  Result<UniqueFd> settings_fd = make_settings_fd(settings_.snapshot);
  if (!settings_fd) return std::unexpected(settings_fd.error());
  settings_fd_ = std::move(*settings_fd);

  if (const int code = uv_loop_init(&loop_); code != 0) {
    return fail_errno(-code, "start the event loop");
  }
  loop_started_ = true;
  watch_signal(sigterm_, SIGTERM);
  watch_signal(sigint_, SIGINT);
  watch_signal(sighup_, SIGHUP);
  watch_signal(sigusr1_, SIGUSR1);
  static_cast<void>(signal(SIGPIPE, SIG_IGN));
  CHECK(uv_timer_init(&loop_, &kill_timer_) == 0);
  kill_timer_.data = this;

  for (const std::string& name : settings_without_effect(config_)) {
    log_warning("setting {}: has no effect in this version", name);
  }
  if (geteuid() == 0) {
    log_warning(
        "running as root: this version does not give root up; better start it as a user "
        "who may read the modules and write the catalog");
  }
  const unsigned cores = std::max(1U, std::thread::hardware_concurrency());
  const unsigned workers = listeners_.empty() ? 0 : config_.workers != 0 ? config_.workers : cores;
  for (unsigned i = 0; i < workers; ++i)
    add_child(ChildRole::kWorker, i);
  add_child(ChildRole::kIndexer, workers);
  for (const auto& child : children_)
    spawn(*child);
  waiting_for_ = workers;
  CHECK(uv_timer_init(&loop_, &ready_timer_) == 0);
  ready_timer_.data = this;
  const auto too_long = [](uv_timer_t* timer) { static_cast<Master*>(timer->data)->announce(); };
  CHECK(uv_timer_start(&ready_timer_, too_long, workers == 0 ? 0 : kReadyMs, 0) == 0);
  return {};
}

// The handles lie in this object and its children, so the loop lets go of every one of them first.
Master::~Master() {
  if (!loop_started_) return;
  stopping_ = true;  // No child is started from here on.
  const auto close = [](uv_handle_t* handle, void*) {
    if (uv_is_closing(handle) == 0) uv_close(handle, nullptr);
  };
  uv_walk(&loop_, close, nullptr);
  while (uv_run(&loop_, UV_RUN_DEFAULT) != 0) {
  }
  CHECK(uv_loop_close(&loop_) == 0);
}

// Says where clients are served, once they are.
void Master::announce() {
  if (announced_) return;
  announced_ = true;
  for (const Listener& listener : listeners_) {
    log_info("listening on {}", config::to_text(listener.address));
  }
  log_info("{} modules, catalog in {}", config_.modules.size(), config_.catalog);
}

// A connection may hold its socket and some files that are sent; the usual soft limit of 1,024 is
// none that anybody chose for us.
void Master::raise_file_limit() const {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const uint64_t wanted = uint64_t{config_.limits.connections} * 2 + kSpareFds;
  if (limit.rlim_max != RLIM_INFINITY && limit.rlim_max < wanted) {
    log_warning("a process may open {} files here; limits.connections of {} may need {}",
                limit.rlim_max, config_.limits.connections, wanted);
  }
}

void Master::watch_signal(uv_signal_t& handle, int number) {
  CHECK(uv_signal_init(&loop_, &handle) == 0);
  handle.data = this;
  const auto call = [](uv_signal_t* mine, int signal_number) {
    static_cast<Master*>(mine->data)->on_signal(signal_number);
  };
  CHECK(uv_signal_start(&handle, call, number) == 0);
}

int Master::run() {
  uv_run(&loop_, UV_RUN_DEFAULT);
  log_info("stopped");
  return 0;
}

// --- Children ----------------------------------------------------------------------------------

void Master::add_child(ChildRole role, uint32_t index) {
  auto child = std::make_unique<Child>();
  child->master = this;
  const bool is_worker = role == ChildRole::kWorker;
  child->options = {role, index, is_worker ? static_cast<uint32_t>(listeners_.size()) : 0};
  child->name = is_worker ? fmt::format("worker {}", index) : "indexer";
  CHECK(uv_timer_init(&loop_, &child->restart) == 0);
  child->restart.data = child.get();
  children_.push_back(std::move(child));
}

void Master::spawn(Child& child) {
  Status spawned = try_spawn(child);
  if (spawned) return;
  log_error("start {}: {}", child.name, spawned.error().message);
  child.control.reset();
  // libuv may have a handle to close first; then on_handle_closed comes back to this.
  if (child.open_handles == 0) restart_later(child);
}

Status Master::try_spawn(Child& child) {
  Result<std::pair<UniqueFd, UniqueFd>> pair = make_control_pair();
  if (!pair) return std::unexpected(pair.error());
  const UniqueFd theirs = std::move(pair->second);
  child.control = std::move(pair->first);

  std::vector<std::string> arguments = child_arguments(child.options);
  arguments.insert(arguments.begin(), "superlifterd");
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (std::string& argument : arguments)
    argv.push_back(argument.data());
  argv.push_back(nullptr);

  // The order is that of inheritance.h.
  std::vector<uv_stdio_container_t> fds(static_cast<size_t>(kFirstListenFd));
  fds[0].flags = UV_IGNORE;
  fds[1].flags = UV_IGNORE;
  const auto hand_down = [&fds](size_t place, int fd) {
    fds[place].flags = UV_INHERIT_FD;
    fds[place].data.fd = fd;
  };
  hand_down(2, STDERR_FILENO);
  hand_down(kControlFd, theirs.get());
  CHECK(segment_.has_value());
  hand_down(kSegmentFd, segment_->fd());
  hand_down(kSettingsFd, settings_fd_.get());
  for (uint32_t i = 0; i < child.options.listen_count; ++i) {
    fds.emplace_back();
    hand_down(fds.size() - 1, listeners_[i].fd.get());
  }

  uv_process_options_t options{};
  options.file = "/proc/self/exe";
  options.args = argv.data();
  options.stdio = fds.data();
  options.stdio_count = static_cast<int>(fds.size());
  options.exit_cb = [](uv_process_t* process, int64_t status, int signal_number) {
    auto& mine = *static_cast<Child*>(process->data);
    mine.master->on_exit(mine, status, signal_number);
  };
  child.process.data = &child;
  if (const int code = uv_spawn(&loop_, &child.process, &options); code != 0) {
    // libuv wants the handle closed all the same.
    child.open_handles = 1;
    uv_close(as_handle(&child.process), [](uv_handle_t* handle) {
      auto& mine = *static_cast<Child*>(handle->data);
      mine.master->on_handle_closed(mine);
    });
    return fail_errno(-code, "/proc/self/exe");
  }
  child.running = true;
  child.started_ms = uv_now(&loop_);
  CHECK(uv_poll_init(&loop_, &child.control_poll, child.control.get()) == 0);
  child.control_poll.data = &child;
  const auto on_readable = [](uv_poll_t* poll, int, int) {
    auto& mine = *static_cast<Child*>(poll->data);
    mine.master->on_control(mine);
  };
  CHECK(uv_poll_start(&child.control_poll, UV_READABLE, on_readable) == 0);
  child.open_handles = 2;
  log_debug("{} is process {}", child.name, child.process.pid);
  return {};
}

void Master::on_exit(Child& child, int64_t status, int signal_number) {
  const uint64_t now_ms = uv_now(&loop_);
  child.running = false;
  if (child.options.role == ChildRole::kWorker) {
    CHECK(segment_.has_value());
    const uint32_t freed = shm::Limiter(*segment_, {}).free_worker(child.options.index);
    if (freed > 0 && !stopping_) log_warning("{}: {} connections are lost", child.name, freed);
  }
  if (signal_number != 0) {
    log_error("{} (process {}) was ended by signal {} ({})", child.name, child.process.pid,
              signal_number, strsignal(signal_number));
  } else if (status != 0 || !stopping_) {
    log_error("{} (process {}) ended with exit code {}", child.name, child.process.pid, status);
  }
  const auto on_closed = [](uv_handle_t* handle) {
    auto& mine = *static_cast<Child*>(handle->data);
    mine.master->on_handle_closed(mine);
  };
  uv_close(as_handle(&child.process), on_closed);
  uv_close(as_handle(&child.control_poll), on_closed);
  child.control.reset();
  if (now_ms - child.started_ms >= kStableMs) child.back_off_ms = kFirstBackOffMs;
  stop_when_alone();
}

// Only now may the handles be used for the next process.
void Master::on_handle_closed(Child& child) {
  if (--child.open_handles == 0) restart_later(child);
}

void Master::restart_later(Child& child) {
  if (stopping_) return;
  const auto again = [](uv_timer_t* timer) {
    auto& mine = *static_cast<Child*>(timer->data);
    if (!mine.master->stopping_) mine.master->spawn(mine);
  };
  CHECK(uv_timer_start(&child.restart, again, child.back_off_ms, 0) == 0);
  child.back_off_ms = std::min(child.back_off_ms * 2, kLongestBackOffMs);
}

void Master::on_control(Child& child) {
  while (true) {
    const Result<std::optional<ControlMessage>> received = receive_control(child.control.get());
    if (!received) {
      // The child closed it or died; its exit is reported on its own.
      uv_poll_stop(&child.control_poll);
      return;
    }
    const std::optional<ControlMessage>& message = *received;
    if (!message) return;
    if (message->type == ControlMessage::Type::kReady && waiting_for_ > 0) {
      if (--waiting_for_ == 0) announce();
    }
    if (message->type == ControlMessage::Type::kRescan && !message->module.empty()) {
      tell_indexer(*message);
    }
  }
}

void Master::tell_indexer(const ControlMessage& message) {
  for (const auto& child : children_) {
    if (child->options.role != ChildRole::kIndexer || !child->running) continue;
    if (Status sent = send_control(child->control.get(), message); !sent) {
      log_warning("tell the indexer: {}", sent.error().message);
    }
  }
}

// --- Signals -----------------------------------------------------------------------------------

void Master::on_signal(int number) {
  switch (number) {
    case SIGUSR1:
      log_info("SIGUSR1: looking at all modules for changes");
      tell_indexer({.type = ControlMessage::Type::kRescan, .drain_ms = 0, .module = {}});
      break;
    case SIGHUP:
      log_warning(
          "SIGHUP: this version reads its configuration at start only; nothing was changed");
      break;
    default:
      stop(number);
      break;
  }
}

void Master::stop(int number) {
  if (stopping_) {
    log_info("{} again: ending all sessions now", strsignal(number));
    kill_children();
    return;
  }
  stopping_ = true;
  // Somebody at a terminal wants it to end, not to wait for others.
  const bool at_once = number == SIGINT && settings_.serves_directory;
  const uint64_t drain_ms = at_once ? 0 : config_.limits.drain_timeout_ms;
  log_info("{}: no new sessions; those that run may take {} ms", strsignal(number), drain_ms);
  listeners_.clear();
  for (const auto& child : children_) {
    uv_timer_stop(&child->restart);
    if (!child->running) continue;
    ControlMessage message;
    if (child->options.role == ChildRole::kWorker) {
      message.type = ControlMessage::Type::kDrain;
      message.drain_ms = static_cast<uint32_t>(std::min<uint64_t>(drain_ms, UINT32_MAX));
    }
    if (Status sent = send_control(child->control.get(), message); !sent) {
      log_warning("tell {}: {}", child->name, sent.error().message);
    }
  }
  const auto too_long = [](uv_timer_t* timer) {
    log_warning("some processes did not end in time and are killed");
    static_cast<Master*>(timer->data)->kill_children();
  };
  CHECK(uv_timer_start(&kill_timer_, too_long, drain_ms + kKillAfterMs, 0) == 0);
  stop_when_alone();
}

void Master::kill_children() {
  for (const auto& child : children_) {
    if (child->running) uv_process_kill(&child->process, SIGKILL);
  }
}

void Master::stop_when_alone() {
  const auto is_running = [](const std::unique_ptr<Child>& child) { return child->running; };
  if (stopping_ && std::none_of(children_.begin(), children_.end(), is_running)) uv_stop(&loop_);
}

}  // namespace

int run_master(Settings settings) {
  start_log("master", settings.config.log.level, settings.config.log.format);
  const auto master = std::make_unique<Master>(std::move(settings));
  if (Status started = master->start(); !started) {
    log_error("{}", started.error().message);
    return 1;
  }
  return master->run();
}

}  // namespace superlifter::daemon
