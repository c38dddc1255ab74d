// Conversation: the client's side of the protocol over one byte stream.
//
// Two ways to use it. Control requests are calls: send, wait, get the joined payload; several may
// be sent before the first is waited for. File content comes through turn(): DATA pieces are handed
// to a handler as views into shared receive buffers ("slabs"), so that writer threads can take them
// without a copy. The slabs are few and fixed: when writers fall behind, receiving stops. What
// comes PACKED is unpacked into slabs of another kind, as few and as fixed. Replies to control
// requests may come in between: poll_reply() picks them up without waiting.
//
// One thread, except wake().
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/base/bytes.h"
#include "core/base/clock.h"
#include "core/base/result.h"
#include "core/io/pump.h"
#include "core/io/stream.h"
#include "core/wire/frame.h"
#include "core/wire/message.h"

struct ZSTD_DCtx_s;

namespace superlifter::client {

// A receive buffer. Lives as long as somebody holds a piece of it.
struct Slab {
  Bytes bytes;
};
using SlabRef = std::shared_ptr<const Slab>;

// Hands out slabs, at most `count` at a time, and takes them back when the last reference goes.
// Thread-safe. `on_return` is called, from whatever thread, when a slab comes back.
class SlabPool : public std::enable_shared_from_this<SlabPool> {
 public:
  SlabPool(size_t count, size_t slab_bytes, std::function<void()> on_return);
  // Null when all are out.
  std::shared_ptr<Slab> take();

 private:
  void give_back(Slab* slab);

  const size_t slab_bytes_;
  const std::function<void()> on_return_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Slab>> free_;  // Guarded by mutex_.
  size_t unmade_;                            // Guarded by mutex_.
};

struct ConversationOptions {
  std::string peer;                    // For messages: "host:port".
  uint64_t timeout_ms = 60'000;        // Longest silence while something is awaited; 0: for ever.
  uint64_t bandwidth_bytes_per_s = 0;  // Receive no faster; 0: unlimited.
  const std::atomic<bool>* stop =
      nullptr;  // When true, waits end with kClosed "interrupted". Borrowed.
};

class Conversation {
 public:
  // What a DATA or ITEM frame of a READ says. `bytes` lives in `slab`.
  struct ReadEvent {
    uint32_t request = 0;
    SlabRef slab;
    ByteView bytes;
    bool ends_item = false;       // The item's last byte.
    bool is_item_status = false;  // An ITEM: index and status are set, there are no bytes.
    uint32_t index = 0;
    wire::Code status =
        wire::Code::kOk;   // With ends_item: kOk only if the frame said so, see decided.
    bool decided = false;  // The item's status is known now.
  };
  using ReadHandler = std::function<Status(const ReadEvent&)>;

  // Takes the stream, sends the hello and waits for the server's. `clock` is borrowed.
  // kProtocol: not superlifter (the message shows its first bytes). kUnsupported: no common version
  // (names both). kBusy with retry_after_ms set. kTimeout, kClosed, kIo.
  [[nodiscard]] static Result<std::unique_ptr<Conversation>> start(io::ByteStream stream,
                                                                   ConversationOptions options,
                                                                   Clock& clock,
                                                                   uint32_t& retry_after_ms);

  const std::string& motd() const { return motd_; }
  // The server, as in messages: "host:port".
  const std::string& peer() const { return options_.peer; }

  // --- Control requests ---
  // Sends without waiting; the id is for wait(). REQUIRES: fewer than kMaxRequestsInFlight are
  // open.
  uint32_t send_modules();
  uint32_t send_open(const std::string& module);
  // `most_bytes`: a longer reply breaks the protocol.
  uint32_t send_tree(const wire::TreeRequest& request, uint64_t most_bytes);
  uint32_t send_digests(const wire::DigestsRequest& request);
  uint32_t send_signature(const wire::SignatureRequest& request, uint64_t most_bytes);
  // Waits for the request's end: the joined payloads of its reply frames. An ERROR for it comes
  // back as Error with the code's Errc; error_argument() is what came with it.
  [[nodiscard]] Result<Bytes> wait(uint32_t request);
  // The same if the request has ended already, else nothing. Receives nothing: turn() does.
  [[nodiscard]] std::optional<Result<Bytes>> poll_reply(uint32_t request);
  uint64_t error_argument() const { return error_argument_; }

  // --- File content ---
  uint32_t send_read(const wire::ReadRequest& request);
  // Waits for bytes (a READ being in flight or not) and hands each READ event to `handler`; comes
  // back after one receive, when woken, or after `wait_ms`. The handler's failure ends the turn.
  [[nodiscard]] Status turn(const ReadHandler& handler, int wait_ms);
  // The READ has ended: its id may no longer get frames.
  void end_read(uint32_t request) { reads_.erase(request); }
  // Nobody waits for the READs in flight any more: what still comes for them is dropped.
  void abandon_reads();
  // The same for all requests in flight; replies that came and were not taken are dropped too.
  void abandon_requests();

  // Sends a PING when nothing was sent for a while; to be called now and then by who is busy.
  [[nodiscard]] Status keep_alive();
  // Says goodbye and waits for the answer, for at most a second: after that nobody cares.
  void finish();

  // Ends the present wait of turn(). Thread-safe, async-signal-safe.
  void wake() const { pump_.wake(); }

  uint64_t bytes_received() const { return pump_.received_bytes(); }
  uint64_t bytes_sent() const { return pump_.sent_bytes(); }

 private:
  struct Pending {
    Bytes payload;
    uint64_t most_bytes = 0;
    bool done = false;
    std::optional<Error> failure;
    uint64_t argument = 0;
  };

  Conversation(io::Pump pump, ConversationOptions options, Clock& clock);

  uint32_t next_id();
  void send_frame(Bytes frame);
  Status receive(const ReadHandler& handler, int wait_ms);
  Status handle_frames(const ReadHandler& handler);
  Status end_of_stream() const;
  std::unexpected<Error> not_superlifter() const;
  Status on_frame(const wire::Frame& frame, const ReadHandler& handler);
  Status on_reply(const wire::Frame& frame);
  Status on_read(const wire::Frame& frame, const SlabRef& slab, const ReadHandler& handler);
  Status on_packed(const wire::Frame& frame, const ReadHandler& handler);
  Status unpack(uint32_t request, ByteView packed, std::shared_ptr<Slab> slab,
                const ReadHandler& handler);
  Status unpack_waiting(const ReadHandler& handler);
  Result<Bytes> take_reply(std::map<uint32_t, Pending>::iterator found);
  Status on_hello(const wire::Frame& frame);
  bool awaits_reply() const;
  bool is_stopped() const { return options_.stop != nullptr && options_.stop->load(); }
  std::unexpected<Error> broken(Errc code, const std::string& what) const;
  uint64_t throttle_ms();

  ConversationOptions options_;
  Clock& clock_;
  io::Pump pump_;
  std::shared_ptr<SlabPool> slabs_;
  std::shared_ptr<Slab> slab_;  // Being filled.
  size_t slab_used_ = 0;
  std::shared_ptr<SlabPool> unpacked_slabs_;
  std::unique_ptr<ZSTD_DCtx_s, void (*)(ZSTD_DCtx_s*)> unpacker_;
  // A PACKED that waits for a slab; the frames behind it wait too.
  struct WaitingPacked {
    uint32_t request = 0;
    Bytes bytes;
  };
  std::unique_ptr<WaitingPacked> waiting_packed_;
  wire::Deframer deframer_;
  bool hello_done_ = false;
  uint32_t retry_after_ms_ = 0;
  std::string motd_;
  uint32_t last_id_ = 0;
  std::map<uint32_t, Pending> pending_;
  std::map<uint32_t, bool> reads_;  // READs in flight, and whether answers may be packed.
  std::set<uint32_t> abandoned_;    // Requests that may still get frames, which nobody wants.
  bool has_unread_ = false;  // A failure, or a PACKED that waits, left frames in the deframer.
  uint64_t error_argument_ = 0;
  uint64_t last_received_ms_ = 0;
  uint64_t last_sent_ms_ = 0;
  uint64_t budget_since_ms_ = 0;
  uint64_t budget_from_bytes_ = 0;
  bool goodbye_sent_ = false;
  bool goodbye_seen_ = false;
};

}  // namespace superlifter::client
