// uv_engine: the engine on libuv, for every host.
//
// Sockets and pipes are raw non-blocking fds under uv_poll_t, not uv_stream_t: the outbox already
// is the write queue, and file ranges must reach the fd by sendfile. The loop itself only makes
// calls that cannot block: it tries file requests against the kernel's caches, some a turn, and
// what would wait for a disk runs in libuv's pool, as file ranges do.
//
//   output of a stream    kIdle ──flush──▶ kQueued ──loop──▶ sent: kIdle or kQueued again
//                                             │ fd is full ──▶ kWaiting ──writable──▶ kQueued
//                                             └ a range ─────▶ kWorking ──pool is done──▶ any of
//                                             these
//
// Lifetimes: what libuv and the pool still use lives in StreamState, which they share with the
// owner's Stream. Destroying the Stream takes the handler away and closes the poll handles; the
// state, and with it the fds, goes when the last of them has let go.
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <deque>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/io/engine.h"
#include "core/io/file_work.h"
#include "core/io/sender.h"

namespace superlifter::io {
namespace {

constexpr size_t kReadBytes = 256 * kKiB;  // One read; also the largest request frame.
constexpr size_t kFilesPerChunk = 32;      // Small enough that a batch of 256 keeps 8 threads busy.
constexpr size_t kFilesPerTurn = 64;       // Of one stream, answered by the loop itself: 0.2 ms,
constexpr uint64_t kFileBytesPerTurn = kMiB;  // and a memory copy.
constexpr int kAcceptsPerTurn = 16;  // Leaves the rest to the other workers of a shared socket.
constexpr uint64_t kAcceptPauseMs = 100;  // After EMFILE: long enough for some session to end.

class UvEngine;

Error uv_failure(int code, const std::string& attempt) {
  return {Errc::kIo, -code, attempt + ": " + uv_strerror(code)};
}

Error broken_stream(int number, const std::string& attempt) {
  const bool by_peer = number == EPIPE || number == ECONNRESET;
  return {by_peer ? Errc::kClosed : Errc::kIo, number, attempt + ": " + std::strerror(number)};
}

template <class Handle>
uv_handle_t* as_handle(Handle* handle) {
  return reinterpret_cast<uv_handle_t*>(handle);
}

struct StreamState : std::enable_shared_from_this<StreamState> {
  enum class Output { kIdle, kQueued, kWaiting, kWorking };

  StreamState(UvEngine& owner, ByteStream stream, StreamHandler& receiver)
      : engine(owner), fds(std::move(stream)), handler(&receiver) {}

  UvEngine& engine;
  ByteStream fds;
  StreamHandler* handler;  // Null: the owner is gone or was told of a break.
  Outbox outbox;
  FdKind out_kind = FdKind::kOther;
  Output output = Output::kIdle;
  uv_poll_t in_poll{};
  uv_poll_t out_poll{};  // Used when the stream has an out-fd of its own.
  bool has_out_poll = false;
  bool read_armed = false;
  bool write_armed = false;
  bool paused = false;
  bool peer_ended = false;
  bool finishing = false;               // finish_output was called.
  bool finished = false;                // The peer was told.
  bool closed = false;                  // The poll handles are closing.
  std::deque<FileRequest> files;        // Not tried yet.
  std::atomic<bool> abandoned = false;  // Tells the pool that nobody waits; relaxed, a hint only.

  bool live() const { return handler != nullptr; }

  void arm(bool read, bool write);
  void close_handle(uv_poll_t& poll);
  void close_handles();
  void break_off(const Error& error);
  void queue_output();
  void send_now();
  void after_sending(const Sent& sent);
  void start_range_work(std::vector<Piece> pieces);
  void run_files();
  void start_files_work(std::vector<FileRequest> requests);
  void tell_peer_of_end();
  void read_now();
  void on_ready(int status, int events);

  static void on_in_poll(uv_poll_t* poll, int status, int events);
  static void on_out_poll(uv_poll_t* poll, int status, int events);
};

// Pieces on their way through the pool. They borrow from the outbox, which `stream` keeps alive and
// which nobody consumes meanwhile.
struct RangeWork {
  uv_work_t request{};
  std::shared_ptr<StreamState> stream;
  std::vector<Piece> pieces;
  Sent sent;
};

struct FilesWork {
  uv_work_t request{};
  std::shared_ptr<StreamState> stream;
  std::vector<FileRequest> requests;
  std::vector<FileReply> replies;
};

struct Listener {
  uv_poll_t poll{};
  uv_timer_t pause{};
  AcceptHandler* handler = nullptr;
  int fd = -1;  // Borrowed.
  int open_handles = 2;
};

struct Watcher {
  uv_poll_t poll{};
  std::function<void()> on_readable;
};

struct TimerState {
  uv_timer_t handle{};
  std::function<void()> on_time;
};

class UvEngine final : public Engine {
 public:
  UvEngine() = default;
  UvEngine(const UvEngine&) = delete;
  UvEngine& operator=(const UvEngine&) = delete;
  ~UvEngine() override;

  [[nodiscard]] Status start();

  const char* name() const override { return "libuv"; }
  [[nodiscard]] Status listen(int fd, AcceptHandler& handler) override;
  void stop_listening() override;
  [[nodiscard]] Result<std::unique_ptr<Stream>> attach(ByteStream stream,
                                                       StreamHandler& handler) override;
  std::unique_ptr<Timer> make_timer(std::function<void()> on_time) override;
  [[nodiscard]] Status watch(int fd, std::function<void()> on_readable) override;
  void run() override;
  void stop() override;
  uint64_t now_ms() const override { return uv_now(&loop_); }

  uv_loop_t* loop() { return &loop_; }
  MutableBytes read_buffer() { return read_buffer_; }
  std::vector<Piece>& scratch_pieces() { return scratch_pieces_; }
  void queue(std::shared_ptr<StreamState> stream);
  void count_object(int change) { objects_ += change; }

 private:
  void run_queued();
  static void accept_some(Listener& listener);
  static void close_listener(Listener& listener);

  uv_loop_t loop_{};
  uv_idle_t idle_{};         // Runs while output is queued: the loop then does not wait.
  uv_async_t keep_alive_{};  // The loop runs until stop(), also with nothing to wait for.
  bool started_ = false;
  bool stopped_ = false;
  Bytes read_buffer_;
  std::vector<Piece> scratch_pieces_;
  std::vector<std::shared_ptr<StreamState>> queued_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::vector<std::unique_ptr<Watcher>> watchers_;
  int objects_ = 0;  // Streams and timers that owners hold.
};

// --- StreamState: output -----------------------------------------------------------------------

// Registers for exactly these events. A change costs two epoll_ctl calls, so callers change seldom.
void StreamState::arm(bool read, bool write) {
  if (closed || (read == read_armed && write == write_armed)) return;
  const auto start = [](uv_poll_t& poll, int events, uv_poll_cb callback) {
    if (events == 0) {
      uv_poll_stop(&poll);
    } else {
      CHECK(uv_poll_start(&poll, events, callback) == 0);
    }
  };
  if (has_out_poll) {
    if (read != read_armed) start(in_poll, read ? UV_READABLE : 0, on_in_poll);
    if (write != write_armed) start(out_poll, write ? UV_WRITABLE : 0, on_out_poll);
  } else {
    start(in_poll, (read ? UV_READABLE : 0) | (write ? UV_WRITABLE : 0), on_in_poll);
  }
  read_armed = read;
  write_armed = write;
}

void StreamState::queue_output() {
  if (!live() || output != Output::kIdle) return;
  if (outbox.empty() && (!finishing || finished)) return;
  output = Output::kQueued;
  engine.queue(shared_from_this());
}

// One turn of output. Called by the loop only.
void StreamState::send_now() {
  if (!live() || output != Output::kQueued) return;
  output = Output::kIdle;
  if (finished) return;
  if (outbox.empty()) {
    tell_peer_of_end();
    return;
  }
  std::vector<Piece>& pieces = engine.scratch_pieces();
  if (gather(outbox, pieces)) {
    start_range_work(std::exchange(pieces, {}));
    return;
  }
  const Sent sent = send_pieces(fds.out_fd(), out_kind, pieces);
  pieces.clear();
  after_sending(sent);
}

void StreamState::start_range_work(std::vector<Piece> pieces) {
  output = Output::kWorking;
  auto work = std::make_unique<RangeWork>();
  work->request.data = work.get();
  work->stream = shared_from_this();
  work->pieces = std::move(pieces);
  const auto run = [](uv_work_t* request) {
    auto& mine = *static_cast<RangeWork*>(request->data);
    if (mine.stream->abandoned.load(std::memory_order_relaxed)) return;
    mine.sent = send_pieces(mine.stream->fds.out_fd(), mine.stream->out_kind, mine.pieces);
  };
  const auto done = [](uv_work_t* request, int) {
    const std::unique_ptr<RangeWork> mine(static_cast<RangeWork*>(request->data));
    mine->pieces.clear();
    mine->stream->output = Output::kIdle;
    if (mine->stream->live()) mine->stream->after_sending(mine->sent);
  };
  CHECK(uv_queue_work(engine.loop(), &work->request, run, done) == 0);
  static_cast<void>(work.release());  // `done` owns it now.
}

void StreamState::after_sending(const Sent& sent) {
  const std::shared_ptr<StreamState> hold = shared_from_this();
  outbox.consume(sent.count);
  if (sent.sys_errno != 0) {
    break_off(broken_stream(sent.sys_errno, "write to the peer"));
    return;
  }
  if (sent.would_block) {
    output = Output::kWaiting;
    arm(read_armed, /*write=*/true);
  } else {
    queue_output();
  }
  if (sent.count > 0 && live()) handler->on_sent();
}

void StreamState::tell_peer_of_end() {
  if (!finishing || finished) return;
  finished = true;
  if (out_kind == FdKind::kSocket) {
    shutdown(fds.out_fd(), SHUT_WR);
  } else if (has_out_poll) {
    has_out_poll = false;
    write_armed = false;
    // Closing takes the fd out of epoll at once; only then may it be closed.
    close_handle(out_poll);
    fds.out.reset();
  }
}

// --- StreamState: files ------------------------------------------------------------------------

// One turn of file requests. Called by the loop only.
void StreamState::run_files() {
  std::vector<FileRequest> waiting;
  bool any = false;
  uint64_t bytes = 0;
  for (size_t i = 0; i < kFilesPerTurn && bytes < kFileBytesPerTurn && !files.empty() && live();
       ++i) {
    FileRequest request = std::move(files.front());
    files.pop_front();
    std::optional<FileReply> reply = try_file_request(request);
    if (!reply) {
      waiting.push_back(std::move(request));
      if (waiting.size() == kFilesPerChunk) start_files_work(std::exchange(waiting, {}));
      continue;
    }
    bytes += reply->data.size();
    any = true;
    handler->on_file(std::move(*reply));
  }
  if (!waiting.empty()) start_files_work(std::move(waiting));
  if (!live()) {
    files.clear();
    return;
  }
  if (!files.empty()) engine.queue(shared_from_this());
  if (any) handler->on_files_done();
}

void StreamState::start_files_work(std::vector<FileRequest> requests) {
  auto work = std::make_unique<FilesWork>();
  work->request.data = work.get();
  work->stream = shared_from_this();
  work->requests = std::move(requests);
  const auto run = [](uv_work_t* request) {
    auto& mine = *static_cast<FilesWork*>(request->data);
    mine.replies.reserve(mine.requests.size());
    for (const FileRequest& one : mine.requests) {
      if (mine.stream->abandoned.load(std::memory_order_relaxed)) return;
      mine.replies.push_back(run_file_request(one));
    }
  };
  const auto done = [](uv_work_t* request, int) {
    const std::unique_ptr<FilesWork> mine(static_cast<FilesWork*>(request->data));
    StreamState& state = *mine->stream;
    for (FileReply& reply : mine->replies) {
      if (!state.live()) return;
      state.handler->on_file(std::move(reply));
    }
    if (state.live()) state.handler->on_files_done();
  };
  CHECK(uv_queue_work(engine.loop(), &work->request, run, done) == 0);
  static_cast<void>(work.release());  // `done` owns it now.
}

// --- StreamState: input ------------------------------------------------------------------------

void StreamState::read_now() {
  if (paused) {
    // Paused lazily: whoever pauses usually resumes before more has come.
    arm(/*read=*/false, write_armed);
    return;
  }
  const MutableBytes buffer = engine.read_buffer();
  const ssize_t got = ::read(fds.in_fd(), buffer.data(), buffer.size());
  if (got > 0) {
    handler->on_bytes(buffer.first(static_cast<size_t>(got)));
  } else if (got == 0) {
    peer_ended = true;
    arm(/*read=*/false, write_armed);
    handler->on_end();
  } else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
    break_off(broken_stream(errno, "read from the peer"));
  }
}

void StreamState::on_ready(int status, int events) {
  const std::shared_ptr<StreamState> hold = shared_from_this();
  if (!live()) return;
  if (status < 0) {
    // libuv reports EBADF for every EPOLLERR and stops the handle; the socket knows the reason.
    int number = 0;
    socklen_t size = sizeof(number);
    if (getsockopt(fds.in_fd(), SOL_SOCKET, SO_ERROR, &number, &size) != 0 || number == 0) {
      number = EPIPE;
    }
    break_off(broken_stream(number, "the peer's stream"));
    return;
  }
  if ((events & UV_WRITABLE) != 0 && write_armed) {
    arm(read_armed, /*write=*/false);
    if (output == Output::kWaiting) {
      output = Output::kQueued;
      send_now();
    }
  }
  if ((events & UV_READABLE) != 0 && live() && read_armed) read_now();
}

void StreamState::on_in_poll(uv_poll_t* poll, int status, int events) {
  static_cast<StreamState*>(poll->data)->on_ready(status, events);
}

void StreamState::on_out_poll(uv_poll_t* poll, int status, int events) {
  static_cast<StreamState*>(poll->data)->on_ready(status, events & UV_WRITABLE);
}

// --- StreamState: end --------------------------------------------------------------------------

// Each closing handle holds the state of its own accord: it lies inside it.
void StreamState::close_handle(uv_poll_t& poll) {
  auto hold = std::make_unique<std::shared_ptr<StreamState>>(shared_from_this());
  poll.data = hold.release();
  uv_close(as_handle(&poll), [](uv_handle_t* handle) {
    const std::unique_ptr<std::shared_ptr<StreamState>> last(
        static_cast<std::shared_ptr<StreamState>*>(handle->data));
  });
}

void StreamState::close_handles() {
  if (closed) return;
  closed = true;
  close_handle(in_poll);
  if (has_out_poll) close_handle(out_poll);
}

void StreamState::break_off(const Error& error) {
  StreamHandler* const receiver = std::exchange(handler, nullptr);
  abandoned.store(true, std::memory_order_relaxed);
  close_handles();
  if (receiver != nullptr) receiver->on_broken(error);
}

// --- The owner's side of a stream --------------------------------------------------------------

class UvStream final : public Stream {
 public:
  explicit UvStream(std::shared_ptr<StreamState> state) : state_(std::move(state)) {
    state_->engine.count_object(1);
  }
  UvStream(const UvStream&) = delete;
  UvStream& operator=(const UvStream&) = delete;
  ~UvStream() override {
    state_->handler = nullptr;
    state_->abandoned.store(true, std::memory_order_relaxed);
    state_->close_handles();
    state_->engine.count_object(-1);
  }

  Outbox& outbox() override { return state_->outbox; }
  void flush() override { state_->queue_output(); }
  void finish_output() override {
    state_->finishing = true;
    state_->queue_output();
  }
  void pause_reading() override { state_->paused = true; }
  void resume_reading() override {
    state_->paused = false;
    if (state_->live() && !state_->peer_ended) state_->arm(/*read=*/true, state_->write_armed);
  }
  void submit(std::vector<FileRequest> requests) override;

 private:
  std::shared_ptr<StreamState> state_;
};

void UvStream::submit(std::vector<FileRequest> requests) {
  if (!state_->live() || requests.empty()) return;
  const bool is_queued = !state_->files.empty();
  std::move(requests.begin(), requests.end(), std::back_inserter(state_->files));
  if (!is_queued) state_->engine.queue(state_);
}

// --- Timers ------------------------------------------------------------------------------------

class UvTimer final : public Timer {
 public:
  UvTimer(UvEngine& engine, std::function<void()> on_time)
      : engine_(engine), state_(std::make_unique<TimerState>()) {
    state_->on_time = std::move(on_time);
    CHECK(uv_timer_init(engine_.loop(), &state_->handle) == 0);
    state_->handle.data = state_.get();
    engine_.count_object(1);
  }
  UvTimer(const UvTimer&) = delete;
  UvTimer& operator=(const UvTimer&) = delete;
  ~UvTimer() override {
    engine_.count_object(-1);
    // The callback that is running, if it is ours, lives until the close is done.
    uv_close(as_handle(&state_.release()->handle), [](uv_handle_t* handle) {
      const std::unique_ptr<TimerState> last(static_cast<TimerState*>(handle->data));
    });
  }

  void set(uint64_t delay_ms) override {
    uv_update_time(engine_.loop());
    const auto on_time = [](uv_timer_t* handle) {
      static_cast<TimerState*>(handle->data)->on_time();
    };
    CHECK(uv_timer_start(&state_->handle, on_time, delay_ms, 0) == 0);
  }
  void stop() override { uv_timer_stop(&state_->handle); }

 private:
  UvEngine& engine_;
  std::unique_ptr<TimerState> state_;
};

// --- UvEngine ----------------------------------------------------------------------------------

Status UvEngine::start() {
  if (const int code = uv_loop_init(&loop_); code != 0) {
    return std::unexpected(uv_failure(code, "start the event loop"));
  }
  started_ = true;
  CHECK(uv_idle_init(&loop_, &idle_) == 0);
  idle_.data = this;
  if (const int code = uv_async_init(&loop_, &keep_alive_, nullptr); code != 0) {
    return std::unexpected(uv_failure(code, "start the event loop"));
  }
  read_buffer_.resize(kReadBytes);
  // sendfile(2) has no MSG_NOSIGNAL: a peer that went away must be an errno, not a signal.
  static_cast<void>(signal(SIGPIPE, SIG_IGN));
  return {};
}

UvEngine::~UvEngine() {
  if (!started_) return;
  CHECK(objects_ == 0);
  queued_.clear();
  stop_listening();
  for (auto& watcher : watchers_) {
    uv_close(as_handle(&watcher.release()->poll), [](uv_handle_t* handle) {
      const std::unique_ptr<Watcher> last(static_cast<Watcher*>(handle->data));
    });
  }
  uv_close(as_handle(&idle_), nullptr);
  if (keep_alive_.type == UV_ASYNC) uv_close(as_handle(&keep_alive_), nullptr);
  // Waits for the pool, and for every handle that is still closing.
  while (uv_run(&loop_, UV_RUN_DEFAULT) != 0) {
  }
  CHECK(uv_loop_close(&loop_) == 0);
}

Status UvEngine::listen(int fd, AcceptHandler& handler) {
  auto listener = std::make_unique<Listener>();
  if (const int code = uv_poll_init(&loop_, &listener->poll, fd); code != 0) {
    return std::unexpected(uv_failure(code, "wait on a listening socket"));
  }
  listener->poll.data = listener.get();
  CHECK(uv_timer_init(&loop_, &listener->pause) == 0);
  listener->pause.data = listener.get();
  listener->handler = &handler;
  listener->fd = fd;
  const auto on_connection = [](uv_poll_t* poll, int, int) {
    accept_some(*static_cast<Listener*>(poll->data));
  };
  CHECK(uv_poll_start(&listener->poll, UV_READABLE, on_connection) == 0);
  listeners_.push_back(std::move(listener));
  return {};
}

void UvEngine::accept_some(Listener& listener) {
  for (int i = 0; i < kAcceptsPerTurn && listener.handler != nullptr; ++i) {
    UniqueFd socket(accept4(listener.fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket) {
      listener.handler->on_accept(std::move(socket));
      continue;
    }
    // accept(2) also hands out errors of connections that died while they waited.
    if (errno == EAGAIN || errno == EWOULDBLOCK) return;
    if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS) continue;
    const Error error{Errc::kLimit, errno, std::string("accept: ") + std::strerror(errno)};
    uv_poll_stop(&listener.poll);
    const auto again = [](uv_timer_t* timer) {
      auto& mine = *static_cast<Listener*>(timer->data);
      const auto on_connection = [](uv_poll_t* poll, int, int) {
        accept_some(*static_cast<Listener*>(poll->data));
      };
      CHECK(uv_poll_start(&mine.poll, UV_READABLE, on_connection) == 0);
    };
    CHECK(uv_timer_start(&listener.pause, again, kAcceptPauseMs, 0) == 0);
    listener.handler->on_accept_error(error);
    return;
  }
}

void UvEngine::close_listener(Listener& listener) {
  listener.handler = nullptr;
  const auto on_closed = [](uv_handle_t* handle) {
    auto* mine = static_cast<Listener*>(handle->data);
    if (--mine->open_handles > 0) return;
    const std::unique_ptr<Listener> last(mine);
  };
  uv_close(as_handle(&listener.poll), on_closed);
  uv_close(as_handle(&listener.pause), on_closed);
}

void UvEngine::stop_listening() {
  // Each frees itself when its handles are closed: this may be called from on_accept.
  for (auto& listener : listeners_)
    close_listener(*listener.release());
  listeners_.clear();
}

Result<std::unique_ptr<Stream>> UvEngine::attach(ByteStream stream, StreamHandler& handler) {
  const auto state = std::make_shared<StreamState>(*this, std::move(stream), handler);
  const bool two_fds = state->fds.out.valid();
  if (const int code = uv_poll_init(&loop_, &state->in_poll, state->fds.in_fd()); code != 0) {
    return std::unexpected(uv_failure(code, "wait on the input of a stream"));
  }
  state->in_poll.data = state.get();
  if (two_fds) {
    if (const int code = uv_poll_init(&loop_, &state->out_poll, state->fds.out_fd()); code != 0) {
      state->handler = nullptr;
      state->close_handles();
      return std::unexpected(uv_failure(code, "wait on the output of a stream"));
    }
    state->out_poll.data = state.get();
    state->has_out_poll = true;
  }
  state->out_kind = kind_of(state->fds.out_fd());
  if (state->out_kind == FdKind::kSocket) {
    // Requests and replies are whole when they are written. Not TCP: the call fails, which is fine.
    const int on = 1;
    setsockopt(state->fds.out_fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  }
  state->arm(/*read=*/true, /*write=*/false);
  return std::make_unique<UvStream>(state);
}

std::unique_ptr<Timer> UvEngine::make_timer(std::function<void()> on_time) {
  return std::make_unique<UvTimer>(*this, std::move(on_time));
}

Status UvEngine::watch(int fd, std::function<void()> on_readable) {
  auto watcher = std::make_unique<Watcher>();
  if (const int code = uv_poll_init(&loop_, &watcher->poll, fd); code != 0) {
    return std::unexpected(uv_failure(code, "watch a descriptor"));
  }
  watcher->poll.data = watcher.get();
  watcher->on_readable = std::move(on_readable);
  const auto call = [](uv_poll_t* poll, int, int) {
    static_cast<Watcher*>(poll->data)->on_readable();
  };
  CHECK(uv_poll_start(&watcher->poll, UV_READABLE, call) == 0);
  watchers_.push_back(std::move(watcher));
  return {};
}

void UvEngine::queue(std::shared_ptr<StreamState> stream) {
  if (queued_.empty()) {
    const auto call = [](uv_idle_t* idle) { static_cast<UvEngine*>(idle->data)->run_queued(); };
    CHECK(uv_idle_start(&idle_, call) == 0);
  }
  queued_.push_back(std::move(stream));
}

void UvEngine::run_queued() {
  const std::vector<std::shared_ptr<StreamState>> turn = std::exchange(queued_, {});
  for (const std::shared_ptr<StreamState>& stream : turn) {
    stream->send_now();
    if (!stream->files.empty()) stream->run_files();
  }
  if (queued_.empty()) uv_idle_stop(&idle_);
}

void UvEngine::run() {
  while (!stopped_)
    uv_run(&loop_, UV_RUN_DEFAULT);
  stopped_ = false;
}

void UvEngine::stop() {
  stopped_ = true;
  uv_stop(&loop_);
}

}  // namespace

Result<std::unique_ptr<Engine>> make_uv_engine() {
  auto engine = std::make_unique<UvEngine>();
  if (Status started = engine->start(); !started) return std::unexpected(started.error());
  return engine;
}

}  // namespace superlifter::io
