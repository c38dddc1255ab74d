// Session: the server's side of one conversation, as a machine that takes bytes and gives bytes.
//
// It owns no file descriptor and no clock. Its driver (daemon/connection) does this, in any order,
// from one thread:
//
//   feed(bytes)            bytes that arrived
//   on_file(reply)         an answer to a FileRequest
//   advance(outbox)        after either of the two and whenever the outbox has drained: puts output
//                          into the outbox until it holds kOutboxHighWaterBytes or there is nothing
//                          to do
//   take_file_requests()   after advance: file work for the engine
//
//   state machine        kHello ──HELLO──▶ kReady ──GOODBYE──▶ kClosing ──all sent──▶ kEnded
//                           │                 │                                         ▲
//                           └── broken rule, deadline (end()) ──────── ERROR ───────────┘
//
// Requests are answered one after another in the order they came; at most kMaxRequestsInFlight
// wait. How each is answered stands in read_answer.h, signature_answer.h and list_answer.h. READ
// and SIGNATURE read files ahead of what is being sent, bounded in number and bytes, and never hold
// file bytes for a peer that does not take them: nothing is read while the outbox is above its
// mark. So a session holds, besides requests that wait: an outbox of kOutboxHighWaterBytes and one
// frame, what one answer has ahead (less than 1 MiB), and what it has ready for its next frame
// (less than 512 KiB). The compressor is the driver's and shared by its sessions.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "core/base/bytes.h"
#include "core/base/file_request.h"
#include "core/base/outbox.h"
#include "core/session/answer.h"
#include "core/session/packer.h"
#include "core/session/store.h"
#include "core/wire/frame.h"
#include "core/wire/message.h"

namespace superlifter::session {

struct Options {
  std::string motd;
  uint32_t idle_timeout_ms = 60'000;
  std::string agent;
  Packer* packer = nullptr;  // Borrowed for the session's life; null: replies are not packed.
};

class Session {
 public:
  // `store` is borrowed and outlives the session.
  Session(Options options, Store& store);
  ~Session();
  Session(Session&&) = delete;
  Session& operator=(Session&&) = delete;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Bytes from the peer. Broken rules end the session by themselves.
  void feed(ByteView bytes);

  // False while enough requests wait: the driver stops reading from the peer until it turns true.
  bool wants_input() const;

  // An answer to a FileRequest of this session.
  void on_file(FileReply reply);

  // Produces output. Call again when the outbox has drained below the mark.
  void advance(Outbox& outbox);

  // File work to hand to the engine, each to be answered by on_file once.
  std::vector<FileRequest> take_file_requests();

  // Ends the session with a code (a deadline, a shutdown): an ERROR goes out, then it has ended.
  void end(wire::Code code);

  // No more output will come; when the outbox is empty the stream can be closed.
  bool has_ended() const { return state_ == State::kEnded; }
  // Why: kOk for a goodbye.
  wire::Code outcome() const { return outcome_; }
  bool hello_done() const { return state_ != State::kHello; }
  // Nothing is being answered.
  bool is_idle() const { return queue_.empty(); }
  // The module that was opened last; empty before.
  const std::string& module() const { return module_; }
  const Counters& counters() const { return counters_; }

 private:
  enum class State { kHello, kReady, kClosing, kEnded };
  struct Request;

  void on_frame(const wire::Frame& frame);
  void on_hello(const wire::Frame& frame);
  void on_request(const wire::Frame& frame);
  void break_off(wire::Code code, uint64_t argument = 0);
  void cancel(uint32_t id);
  // True when the request at the front of the queue has said all it has to say.
  bool answer(Request& request, Outbox& outbox);
  wire::Code begin(Request& request, Outbox& outbox);
  wire::Code open(Request& request, Outbox& outbox);

  Options options_;
  Store& store_;
  State state_ = State::kHello;
  wire::Code outcome_ = wire::Code::kOk;
  wire::Deframer deframer_;
  Bytes control_;                               // Output that does not wait its turn (pong, error).
  std::deque<std::unique_ptr<Request>> queue_;  // In the order of arrival.
  std::shared_ptr<const Generation> generation_;  // Of the last OPEN that succeeded.
  std::string module_;
  FileQueue files_;
  Counters counters_;
};

}  // namespace superlifter::session
