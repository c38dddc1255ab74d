// Engine: what a worker asks of the kernel. A seam: uv_engine (libuv with a small thread pool for
// files) serves everywhere, and another engine must behave the same.
//
// One thread. No call blocks on a peer or a disk. Handlers run from the loop, never inside a call
// made by the handler's owner, so an owner may call anything from a handler, including destroying
// the object that is calling.
//
//   Engine ──accept──▶ AcceptHandler
//     └─ Stream: reads ──▶ StreamHandler::on_bytes      outbox ──▶ the peer
//                files ──▶ StreamHandler::on_file
//
// Work of one stream in one loop turn is bounded (one read, one gathering write), so that a fast
// peer does not starve the others.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/base/bytes.h"
#include "core/base/file_request.h"
#include "core/base/outbox.h"
#include "core/base/result.h"
#include "core/io/stream.h"

namespace superlifter::io {

class StreamHandler {
 public:
  virtual ~StreamHandler() = default;
  // Bytes from the peer; borrowed for the call.
  virtual void on_bytes(ByteView bytes) = 0;
  // An answer to Stream::submit. Engines cut a batch into chunks; the replies of a chunk come in
  // one loop turn, then on_files_done once.
  virtual void on_file(FileReply reply) = 0;
  virtual void on_files_done() = 0;
  // Some output has left (the outbox may be empty now).
  virtual void on_sent() = 0;
  // The peer will send no more (end of stream), or the stream broke (kIo, kClosed). Nothing is
  // called after a break.
  virtual void on_end() = 0;
  virtual void on_broken(const Error& error) = 0;
};

// One byte stream. Destroying it closes the fds once the work in flight has ended; no handler is
// called after that.
class Stream {
 public:
  virtual ~Stream() = default;
  virtual Outbox& outbox() = 0;
  // Output was put into the outbox: send it as the peer takes it.
  virtual void flush() = 0;
  // No more will be put into the outbox: once it is empty the peer is told so (a socket's write
  // side is shut down, another out-fd is closed). Reading goes on, so that a last message is not
  // lost to the reset that a close with unread input would cause.
  virtual void finish_output() = 0;
  virtual void pause_reading() = 0;
  virtual void resume_reading() = 0;
  // Runs file work; each request is answered once, in any order.
  virtual void submit(std::vector<FileRequest> requests) = 0;
};

class AcceptHandler {
 public:
  virtual ~AcceptHandler() = default;
  // A connection was accepted; it is non-blocking and close-on-exec.
  virtual void on_accept(UniqueFd socket) = 0;
  // accept(2) fails for want of resources (EMFILE, ENFILE, ENOMEM); the engine pauses a moment by
  // itself.
  virtual void on_accept_error(const Error& error) = 0;
};

// One-shot; setting it again replaces the deadline. Destroying it stops it.
class Timer {
 public:
  virtual ~Timer() = default;
  virtual void set(uint64_t delay_ms) = 0;
  virtual void stop() = 0;
};

class Engine {
 public:
  virtual ~Engine() = default;

  // A short word for logs: "libuv".
  virtual const char* name() const = 0;

  // Accepts from a listening socket, which is borrowed and shared with other processes. The handler
  // outlives the engine or stop_listening.
  [[nodiscard]] virtual Status listen(int fd, AcceptHandler& handler) = 0;
  virtual void stop_listening() = 0;

  // Takes the fds over, makes them non-blocking and begins to read; TCP loses its Nagle delay. The
  // handler outlives the stream. kIo when an fd is of a kind that cannot be waited for.
  [[nodiscard]] virtual Result<std::unique_ptr<Stream>> attach(ByteStream stream,
                                                               StreamHandler& handler) = 0;

  virtual std::unique_ptr<Timer> make_timer(std::function<void()> on_time) = 0;

  // Calls `on_readable` whenever the borrowed fd can be read (a control pipe from the master).
  [[nodiscard]] virtual Status watch(int fd, std::function<void()> on_readable) = 0;

  // Runs until stop().
  virtual void run() = 0;
  virtual void stop() = 0;

  virtual uint64_t now_ms() const = 0;  // Monotonic, of the current loop turn.
};

// The libuv engine. File work and file ranges run in libuv's pool (UV_THREADPOOL_SIZE threads, 4
// unless the environment says otherwise). Ignores SIGPIPE for the whole process. Streams and timers
// are destroyed before their engine; whatever else file requests borrow, after it.
[[nodiscard]] Result<std::unique_ptr<Engine>> make_uv_engine();

}  // namespace superlifter::io
