// Pump: drives a byte stream with poll(2), for the ends that have a thread to spend: the client and
// tests. Reads go straight into the caller's buffer; output comes from bytes that the caller
// queues.
//
// One thread drives; wake() may be called from any other.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

#include "core/base/bytes.h"
#include "core/base/result.h"
#include "core/io/stream.h"

namespace superlifter::io {

class Pump {
 public:
  // Takes the fds over and makes them non-blocking.
  [[nodiscard]] static Result<Pump> make(ByteStream stream);

  // Queues output; sent by turn().
  void send(Bytes bytes);
  uint64_t unsent_bytes() const { return unsent_; }

  struct Turn {
    size_t received_bytes = 0;  // Put at the front of `buffer`.
    bool ended = false;         // The peer will send no more.
    bool woken = false;         // wake() was called since the last turn.
    bool timed_out = false;     // Nothing of the above happened, nor was anything sent, in time.
  };

  // Waits until something of the above happens or output moves, at most timeout_ms (-1: for ever),
  // and does it: sends what the peer takes, receives at most buffer.size() bytes. An empty buffer
  // means: do not receive now. kClosed when the peer has closed and output cannot be sent, kIo.
  // A peer may say why before it closes: after a failed send, what it sent is still received first.
  [[nodiscard]] Result<Turn> turn(MutableBytes buffer, int timeout_ms);

  // Ends the next or present turn early. Thread-safe, async-signal-safe.
  void wake() const;

  uint64_t received_bytes() const { return received_; }
  uint64_t sent_bytes() const { return sent_; }

 private:
  Pump() = default;

  [[nodiscard]] Status send_some();
  [[nodiscard]] Status receive_some(MutableBytes buffer, Turn& turn);

  ByteStream stream_;
  UniqueFd wake_;  // eventfd.
  std::deque<Bytes> out_;
  size_t front_sent_ = 0;  // Bytes of out_.front() that have left.
  uint64_t unsent_ = 0;
  uint64_t received_ = 0;
  uint64_t sent_ = 0;
  bool ended_ = false;
  bool is_socket_ = false;             // The out-fd.
  std::optional<Error> send_failure_;  // Nothing more can be sent.
};

}  // namespace superlifter::io
