// See index_mode.h.
#include "daemon/index_mode.h"

#include <errno.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "core/base/clock.h"
#include "core/base/escape.h"
#include "core/base/log.h"
#include "core/base/unique_fd.h"
#include "core/catalog/signature_pack.h"
#include "core/fs/beneath.h"
#include "core/fs/watch.h"
#include "daemon/control.h"

namespace superlifter::daemon {
namespace {

constexpr int kIndexerNice = 10;
constexpr int kBusyAttempts = 10;  // `superlifterd index` waits for another writer: 3 s in all.
constexpr uint64_t kBusyPauseMs = 300;

// Set by signal handlers and the control thread; index_module looks at it. Lock-free, so a handler
// may.
std::atomic<bool> stop_requested = false;
static_assert(std::atomic<bool>::is_always_lock_free);

void on_stop_signal(int) {
  stop_requested.store(true, std::memory_order_relaxed);
}

void handle_signal(int number, void (*handler)(int)) {
  struct sigaction action{};
  action.sa_handler = handler;
  sigemptyset(&action.sa_mask);
  sigaction(number, &action, nullptr);  // Without SA_RESTART: poll must return.
}

// ", signatures 13.4 MB (1.04 %) in a pack of 14.0 MB"; nothing when there are none.
std::string describe_signatures(const catalog::IndexReport& report) {
  if (report.pack_bytes == 0) return {};
  const auto megabytes = [](uint64_t bytes) { return static_cast<double>(bytes) / 1e6; };
  const double share = report.bytes == 0 ? 0
                                         : 100 * static_cast<double>(report.signature_bytes) /
                                               static_cast<double>(report.bytes);
  return fmt::format(", signatures {:.1f} MB ({:.2f} %) in a pack of {:.1f} MB",
                     megabytes(report.signature_bytes), share, megabytes(report.pack_bytes));
}

unsigned core_count() {
  return std::max(1U, std::thread::hardware_concurrency());
}

// One pass over one module.
Result<catalog::IndexReport> run_pass(const config::Config& config, const config::Module& module,
                                      unsigned threads) {
  const Result<UniqueFd> root = fs::open_root(module.path);
  if (!root) return std::unexpected(root.error());
  const Result<UniqueFd> catalog = fs::open_root(config.catalog);
  if (!catalog) return std::unexpected(catalog.error());
  catalog::IndexOptions options;
  options.module = module.name;
  options.root_fd = root->get();
  options.catalog_fd = catalog->get();
  options.exclude = module.exclude;
  options.hold_while = module.hold_while;
  options.owners = module.owners;
  options.threads = threads;
  options.keep_generations = std::max(1U, config.limits.generations);
  options.signature_level = catalog::signature_level_within(config.signature_share);
  options.stop = &stop_requested;
  options.on_provisional = [&module](const catalog::IndexReport& report) {
    log_info("{} (provisional)", describe(module.name, report));
  };
  return catalog::index_module(options);
}

// The module's tree under watch. The watcher borrows the root fd, so they live and move together.
struct Watch {
  UniqueFd root;
  fs::Watcher watcher;
};

struct Job {
  explicit Job(const config::Module& config) : module(config), schedule(config.rescan_ms) {}

  const config::Module& module;
  RescanSchedule schedule;
  std::optional<Watch> watch;
  bool watch_failed = false;  // Logged; the interval has to do.
};

class Indexer {
 public:
  explicit Indexer(Inheritance inheritance)
      : inheritance_(std::move(inheritance)), config_(inheritance_.settings.config) {
    for (const config::Module& module : config_.modules)
      jobs_.emplace_back(module);
  }

  [[nodiscard]] Status run();

 private:
  void listen_to_master();
  void take_requests();
  void wait();
  void make_pass(Job& job);
  void keep_watch(Job& job);
  void drain_watch(Job& job);

  Inheritance inheritance_;
  const config::Config& config_;
  SystemClock clock_;
  std::vector<Job> jobs_;
  UniqueFd wake_;                      // eventfd: the control thread has something.
  std::mutex mutex_;                   // Guards requests_.
  std::vector<std::string> requests_;  // Module names; empty: all, at once.
};

Status Indexer::run() {
  wake_ = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_) return fail_errno(errno, "make an eventfd");
  // A pass keeps this thread busy for as long as it takes; "stop" must still be heard.
  const std::jthread control([this] { listen_to_master(); });
  while (!stop_requested.load(std::memory_order_relaxed)) {
    take_requests();
    const uint64_t now_ms = clock_.monotonic_ms();
    Job* due = nullptr;
    uint64_t earliest_ms = UINT64_MAX;
    for (Job& job : jobs_) {
      const uint64_t at_ms = job.schedule.due_ms().value_or(UINT64_MAX);
      if (at_ms > now_ms || at_ms >= earliest_ms) continue;
      due = &job;
      earliest_ms = at_ms;
    }
    if (due != nullptr) {
      make_pass(*due);
    } else {
      wait();
    }
  }
  // Ends the thread's wait.
  shutdown(inheritance_.control.get(), SHUT_RDWR);
  return {};
}

// Runs in its own thread, until the master stops us or is gone.
void Indexer::listen_to_master() {
  while (!stop_requested.load(std::memory_order_relaxed)) {
    pollfd wait{inheritance_.control.get(), POLLIN, 0};
    if (poll(&wait, 1, -1) < 0 && errno != EINTR) break;
    const Result<std::optional<ControlMessage>> received =
        receive_control(inheritance_.control.get());
    if (!received) break;
    const std::optional<ControlMessage>& message = *received;
    if (message && message->type == ControlMessage::Type::kStop) break;
    if (message && message->type == ControlMessage::Type::kRescan) {
      const std::lock_guard lock(mutex_);
      // The same request again adds nothing; this also bounds the list.
      if (std::find(requests_.begin(), requests_.end(), message->module) == requests_.end()) {
        requests_.push_back(message->module);
      }
    }
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t ignored = write(wake_.get(), &one, sizeof(one));
  }
  stop_requested.store(true, std::memory_order_relaxed);
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t ignored = write(wake_.get(), &one, sizeof(one));
}

void Indexer::take_requests() {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t ignored = read(wake_.get(), &count, sizeof(count));
  std::vector<std::string> requests;
  {
    const std::lock_guard lock(mutex_);
    requests.swap(requests_);
  }
  for (const std::string& request : requests) {
    for (Job& job : jobs_) {
      if (request.empty()) {
        job.schedule.on_request();
      } else if (job.module.name == request) {
        job.schedule.on_event(clock_.monotonic_ms());
      }
    }
  }
  for (Job& job : jobs_)
    drain_watch(job);
}

// Until something is due, or somebody has something to say.
void Indexer::wait() {
  std::vector<pollfd> waits{{wake_.get(), POLLIN, 0}};
  std::optional<uint64_t> next_ms;
  for (const Job& job : jobs_) {
    if (job.watch) waits.push_back({job.watch->watcher.fd(), POLLIN, 0});
    const std::optional<uint64_t> due_ms = job.schedule.due_ms();
    if (due_ms && (!next_ms || *due_ms < *next_ms)) next_ms = due_ms;
  }
  int timeout_ms = -1;
  if (next_ms) {
    const uint64_t now_ms = clock_.monotonic_ms();
    const uint64_t left_ms = *next_ms > now_ms ? *next_ms - now_ms : 0;
    timeout_ms = static_cast<int>(std::min<uint64_t>(left_ms, 3600'000));
  }
  poll(waits.data(), waits.size(), timeout_ms);
}

void Indexer::make_pass(Job& job) {
  // Before the walk, so that nothing falls between the two.
  keep_watch(job);
  const uint64_t began_ms = clock_.monotonic_ms();
  const Result<catalog::IndexReport> report = run_pass(config_, job.module, core_count());
  const uint64_t ended_ms = clock_.monotonic_ms();
  if (report) {
    log_info("{}", describe(job.module.name, *report));
    job.schedule.on_pass_done(began_ms, ended_ms);
    return;
  }
  if (report.error().code == Errc::kClosed && stop_requested.load()) return;
  if (report.error().code == Errc::kBusy) {
    log_debug("module {}: {}", job.module.name, report.error().message);
  } else {
    log_error("module {}: not indexed: {}", job.module.name, report.error().message);
  }
  job.schedule.on_pass_failed(began_ms, ended_ms, report.error().code);
}

// Watches the tree that the module's path names now.
void Indexer::keep_watch(Job& job) {
  if (!job.module.watch || job.watch_failed) return;
  Result<UniqueFd> root = fs::open_root(job.module.path);
  if (!root) return;  // The pass will say so.
  struct stat now{};
  if (fstat(root->get(), &now) != 0) return;
  if (job.watch) {
    struct stat watched{};
    if (fstat(job.watch->root.get(), &watched) == 0 && watched.st_dev == now.st_dev &&
        watched.st_ino == now.st_ino) {
      return;
    }
    job.watch.reset();
  }
  Result<fs::Watcher> watcher = fs::Watcher::make(
      root->get(), {.exclude = job.module.exclude, .notice = job.module.hold_while});
  if (!watcher) {
    job.watch_failed = true;
    log_warning("module {}: no file-system events, rescans by interval only: {}", job.module.name,
                watcher.error().message);
    return;
  }
  job.watch.emplace(std::move(*root), std::move(*watcher));
}

void Indexer::drain_watch(Job& job) {
  if (!job.watch) return;
  const Result<fs::Watcher::Changes> changes = job.watch->watcher.drain();
  if (!changes) {
    log_warning("module {}: file-system events end, rescans by interval only: {}", job.module.name,
                changes.error().message);
    job.watch.reset();
    job.watch_failed = true;
    job.schedule.on_event(clock_.monotonic_ms());
    return;
  }
  if (changes->changed || changes->events_lost) job.schedule.on_event(clock_.monotonic_ms());
  if (changes->root_gone) {
    // The next pass watches what stands at the path then.
    job.watch.reset();
    job.schedule.on_event(clock_.monotonic_ms());
  }
}

}  // namespace

// --- RescanSchedule ----------------------------------------------------------------------------

void RescanSchedule::on_event(uint64_t now_ms) {
  if (!first_event_ms_) first_event_ms_ = now_ms;
  last_event_ms_ = now_ms;
}

void RescanSchedule::on_pass_done(uint64_t began_ms, uint64_t ended_ms) {
  at_once_ = false;
  retry_ms_.reset();
  ended_ms_ = ended_ms;
  lasted_ms_ = ended_ms - began_ms;
  // Events of before the walk are answered by it; they were taken before it began.
  first_event_ms_.reset();
  last_event_ms_.reset();
}

void RescanSchedule::on_pass_failed(uint64_t began_ms, uint64_t ended_ms, Errc code) {
  on_pass_done(began_ms, ended_ms);
  if (code == Errc::kBusy) retry_ms_ = ended_ms + kRetryMs;
}

std::optional<uint64_t> RescanSchedule::due_ms() const {
  if (at_once_) return 0;
  std::optional<uint64_t> due;
  const auto take = [&due](uint64_t at_ms) { due = due ? std::min(*due, at_ms) : at_ms; };
  if (retry_ms_) take(*retry_ms_);
  if (rescan_ms_ != 0) take(ended_ms_ + rescan_ms_);
  if (first_event_ms_ && last_event_ms_) {
    const uint64_t quiet_ms =
        std::min(*last_event_ms_ + kQuietMs, *first_event_ms_ + kLongestWaitMs);
    take(std::max(quiet_ms, ended_ms_ + kRestFactor * lasted_ms_));
  }
  return due;
}

// --- Index mode --------------------------------------------------------------------------------

std::string describe(const std::string& module, const catalog::IndexReport& report) {
  switch (report.outcome) {
    case catalog::IndexReport::Outcome::kUnchanged:
      return fmt::format("module {}: generation {} is up to date{}", module, report.generation,
                         describe_signatures(report));
    case catalog::IndexReport::Outcome::kHeld:
      return fmt::format("module {}: nothing is published while {} is there; generation {} stays",
                         module, escape(report.held_by), report.generation);
    case catalog::IndexReport::Outcome::kPublished:
      break;
  }
  return fmt::format(
      "module {}: generation {} published: {} entries, {} files, {} bytes, {} hashed{}", module,
      report.generation, report.entries, report.files, report.bytes, report.files_hashed,
      describe_signatures(report));
}

int run_index_command(const Settings& settings, const std::vector<std::string>& modules,
                      unsigned threads) {
  const config::Config& config = settings.config;
  start_log("index", config.log.level, config.log.format);
  for (const int number : {SIGINT, SIGTERM, SIGHUP})
    handle_signal(number, on_stop_signal);
  std::vector<const config::Module*> chosen;
  for (const std::string& name : modules) {
    const config::Module* const module = config.find_module(name);
    if (module == nullptr) {
      static_cast<void>(
          std::fprintf(stderr, "superlifterd: module %s: the configuration has none of that name\n",
                       escape(name).c_str()));
      return 1;
    }
    chosen.push_back(module);
  }
  if (modules.empty()) {
    for (const config::Module& module : config.modules)
      chosen.push_back(&module);
  }
  if (Status made = make_catalog_directory(config); !made) {
    static_cast<void>(std::fprintf(stderr, "superlifterd: %s\n", made.error().message.c_str()));
    return 1;
  }
  int code = 0;
  for (const config::Module* const module : chosen) {
    Result<catalog::IndexReport> report =
        run_pass(config, *module, threads != 0 ? threads : core_count());
    for (int attempt = 1; !report && report.error().code == Errc::kBusy &&
                          attempt < kBusyAttempts && !stop_requested.load();
         ++attempt) {
      poll(nullptr, 0, static_cast<int>(kBusyPauseMs));
      report = run_pass(config, *module, threads != 0 ? threads : core_count());
    }
    if (report) {
      static_cast<void>(std::printf("%s\n", describe(module->name, *report).c_str()));
    } else {
      static_cast<void>(std::fprintf(stderr, "superlifterd: module %s: %s\n", module->name.c_str(),
                                     report.error().message.c_str()));
      code = 1;
    }
    if (stop_requested.load()) return 1;
  }
  if (std::fflush(stdout) != 0) return 1;
  return code;
}

int run_indexer(Inheritance inheritance) {
  const config::Config& config = inheritance.settings.config;
  start_log("indexer", config.log.level, config.log.format);
  prctl(PR_SET_NAME, "superlifter-idx");
  for (const int number : {SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE})
    static_cast<void>(signal(number, SIG_IGN));
  handle_signal(SIGTERM, on_stop_signal);
  // Before any thread: each inherits both. Failures only mean that it is less polite.
  setpriority(PRIO_PROCESS, 0, kIndexerNice);
  constexpr int kWhoProcess = 1;
  constexpr int kBestEffortLowest = (2 << 13) | 7;
  syscall(SYS_ioprio_set, kWhoProcess, 0, kBestEffortLowest);
  if (Status done = Indexer(std::move(inheritance)).run(); !done) {
    log_error("{}", done.error().message);
    return 1;
  }
  return 0;
}

}  // namespace superlifter::daemon
