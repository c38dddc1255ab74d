#include "client/conversation.h"

#include <zstd.h>

#include <algorithm>
#include <utility>

#include "core/base/check.h"
#include "core/base/coding.h"
#include "core/base/escape.h"
#include "core/base/limits.h"
#include "core/wire/codec.h"

namespace superlifter::client {
namespace {

using wire::Code;
using wire::Type;

constexpr size_t kSlabBytes = 256 << 10;
constexpr size_t kSlabs = 48;                // 12 MiB between the network and the writers.
constexpr size_t kSlabRoomBytes = 16 << 10;  // Less room than this: the next slab.
// Of kMaxPackedBytes each; one holds what came in one PACKED, much or little.
constexpr size_t kUnpackedSlabs = 16;
constexpr uint64_t kKeepAliveMs = 15'000;  // Well under any sensible idle timeout.
constexpr int kGoodbyeMs = 1000;
constexpr size_t kNodesFrameBytes = 64;  // What a zstd frame adds to what it holds, amply.
constexpr std::string_view kAgent = "superlifter/" SUPERLIFTER_VERSION;

Errc to_errc(Code code) {
  switch (code) {
    case Code::kVersion:
      return Errc::kUnsupported;
    case Code::kNotFound:
      return Errc::kNotFound;
    case Code::kDenied:
      return Errc::kDenied;
    case Code::kBusy:
    case Code::kNotReady:
      return Errc::kBusy;
    case Code::kStale:
      return Errc::kStale;
    case Code::kGone:
      return Errc::kGone;
    case Code::kTimeout:
      return Errc::kTimeout;
    case Code::kShutdown:
    case Code::kTooSlow:
      return Errc::kClosed;
    default:
      return Errc::kProtocol;
  }
}

}  // namespace

SlabPool::SlabPool(size_t count, size_t slab_bytes, std::function<void()> on_return)
    : slab_bytes_(slab_bytes), on_return_(std::move(on_return)), unmade_(count) {}

std::shared_ptr<Slab> SlabPool::take() {
  std::unique_ptr<Slab> slab;
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      slab = std::move(free_.back());
      free_.pop_back();
    } else if (unmade_ > 0) {
      --unmade_;
      slab = std::make_unique<Slab>();
    } else {
      return nullptr;
    }
  }
  if (slab->bytes.empty()) slab->bytes.resize(slab_bytes_);
  // The pool lives as long as any slab is out.
  return {slab.release(), [pool = shared_from_this()](Slab* back) { pool->give_back(back); }};
}

void SlabPool::give_back(Slab* slab) {
  {
    const std::lock_guard lock(mutex_);
    free_.emplace_back(slab);
  }
  on_return_();
}

Conversation::Conversation(io::Pump pump, ConversationOptions options, Clock& clock)
    : options_(std::move(options)),
      clock_(clock),
      pump_(std::move(pump)),
      unpacker_(nullptr, [](ZSTD_DCtx_s* context) { static_cast<void>(ZSTD_freeDCtx(context)); }),
      deframer_(kMaxHelloPayload) {
  deframer_.stream_data();
  last_received_ms_ = last_sent_ms_ = budget_since_ms_ = clock_.monotonic_ms();
}

Result<std::unique_ptr<Conversation>> Conversation::start(io::ByteStream stream,
                                                          ConversationOptions options, Clock& clock,
                                                          uint32_t& retry_after_ms) {
  Result<io::Pump> pump = io::Pump::make(std::move(stream));
  if (!pump) return std::unexpected(pump.error());
  std::unique_ptr<Conversation> made(new Conversation(std::move(*pump), std::move(options), clock));
  // Whoever holds pieces (the applier) ends before the conversation does.
  Conversation* conversation = made.get();
  made->slabs_ =
      std::make_shared<SlabPool>(kSlabs, kSlabBytes, [conversation] { conversation->wake(); });
  made->unpacked_slabs_ = std::make_shared<SlabPool>(kUnpackedSlabs, kMaxPackedBytes,
                                                     [conversation] { conversation->wake(); });
  Bytes hello;
  wire::encode(wire::ClientHello{.version_min = wire::kProtocolVersion,
                                 .version_max = wire::kProtocolVersion,
                                 .features = {},
                                 .agent = kAgent},
               hello);
  made->pump_.send(std::move(hello));
  while (!made->hello_done_) {
    if (const Status turned = made->receive({}, -1); !turned) {
      retry_after_ms = made->retry_after_ms_;
      return std::unexpected(turned.error());
    }
  }
  return made;
}

std::unexpected<Error> Conversation::broken(Errc code, const std::string& what) const {
  return fail(code, options_.peer + ": " + what);
}

uint32_t Conversation::next_id() {
  last_id_ = last_id_ == UINT32_MAX ? 1 : last_id_ + 1;
  return last_id_;
}

void Conversation::send_frame(Bytes frame) {
  last_sent_ms_ = clock_.monotonic_ms();
  pump_.send(std::move(frame));
}

uint32_t Conversation::send_modules() {
  const uint32_t id = next_id();
  Bytes frame;
  wire::encode_empty(Type::kModules, id, frame);
  send_frame(std::move(frame));
  pending_[id].most_bytes = kMaxModules * (kMaxModuleNameBytes + kMaxCommentBytes + 64);
  return id;
}

uint32_t Conversation::send_open(const std::string& module) {
  const uint32_t id = next_id();
  Bytes frame;
  wire::encode(wire::Open{.module = module}, id, frame);
  send_frame(std::move(frame));
  pending_[id].most_bytes = kMaxHelloPayload;
  return id;
}

uint32_t Conversation::send_tree(const wire::TreeRequest& request, uint64_t most_bytes) {
  const uint32_t id = next_id();
  Bytes frame;
  wire::encode(request, id, frame);
  send_frame(std::move(frame));
  pending_[id].most_bytes = most_bytes;
  return id;
}

uint32_t Conversation::send_digests(const wire::DigestsRequest& request) {
  const uint32_t id = next_id();
  Bytes frame;
  wire::encode(request, id, frame);
  send_frame(std::move(frame));
  const size_t width =
      request.kind == wire::DigestKind::kSha256 ? sizeof(hash::Sha256) : sizeof(hash::Xxh128);
  uint64_t count = 0;
  for (const wire::EntryRange& range : request.ranges) {
    count += range.count;
  }
  pending_[id].most_bytes = count * width;
  return id;
}

uint32_t Conversation::send_signature(const wire::SignatureRequest& request, uint64_t most_bytes) {
  const uint32_t id = next_id();
  Bytes frame;
  wire::encode(request, id, frame);
  send_frame(std::move(frame));
  pending_[id].most_bytes = most_bytes;
  return id;
}

uint32_t Conversation::send_read(const wire::ReadRequest& request) {
  const uint32_t id = next_id();
  Bytes frame;
  wire::encode(request, id, frame);
  send_frame(std::move(frame));
  reads_.emplace(id, request.may_pack);
  return id;
}

void Conversation::abandon_reads() {
  for (const auto& [id, may_pack] : reads_) {
    abandoned_.insert(id);
  }
  reads_.clear();
}

void Conversation::abandon_requests() {
  abandon_reads();
  for (const auto& [id, pending] : pending_)
    if (!pending.done) abandoned_.insert(id);
  pending_.clear();
}

Result<Bytes> Conversation::wait(uint32_t request) {
  const auto found = pending_.find(request);
  CHECK(found != pending_.end());
  while (!found->second.done) {
    if (const Status turned = receive({}, -1); !turned) return std::unexpected(turned.error());
  }
  return take_reply(found);
}

std::optional<Result<Bytes>> Conversation::poll_reply(uint32_t request) {
  const auto found = pending_.find(request);
  CHECK(found != pending_.end());
  if (!found->second.done) return std::nullopt;
  return take_reply(found);
}

Result<Bytes> Conversation::take_reply(std::map<uint32_t, Pending>::iterator found) {
  Pending pending = std::move(found->second);
  pending_.erase(found);
  if (pending.failure) {
    error_argument_ = pending.argument;
    return std::unexpected(std::move(*pending.failure));
  }
  return std::move(pending.payload);
}

Status Conversation::turn(const ReadHandler& handler, int wait_ms) {
  return receive(handler, wait_ms);
}

// Milliseconds that must pass before more may be received under the bandwidth limit.
uint64_t Conversation::throttle_ms() {
  if (options_.bandwidth_bytes_per_s == 0) return 0;
  const uint64_t now = clock_.monotonic_ms();
  const uint64_t received = pump_.received_bytes() - budget_from_bytes_;
  const uint64_t due_ms = received * 1000 / options_.bandwidth_bytes_per_s;
  const uint64_t passed_ms = now - budget_since_ms_;
  if (due_ms > passed_ms) return due_ms - passed_ms;
  // An idle second is not saved up for a burst.
  if (passed_ms - due_ms > 1000) {
    budget_since_ms_ = now;
    budget_from_bytes_ = pump_.received_bytes();
  }
  return 0;
}

bool Conversation::awaits_reply() const {
  const auto is_open = [](const auto& pending) { return !pending.second.done; };
  return !hello_done_ || !reads_.empty() ||
         std::any_of(pending_.begin(), pending_.end(), is_open) || pump_.unsent_bytes() > 0;
}

// One wait for bytes, and all frames in what came. wait_ms -1: until something happens, or the
// timeout.
Status Conversation::receive(const ReadHandler& handler, int wait_ms) {
  if (is_stopped()) return broken(Errc::kClosed, "interrupted");
  // What an earlier failure (GONE for one of several READs) left comes first: a frame that is cut
  // off would put all after it out of step.
  if (waiting_packed_ != nullptr) {
    if (const Status unpacked = unpack_waiting(handler); !unpacked) return unpacked;
  }
  const bool may_receive = waiting_packed_ == nullptr;  // Else the deframer still has bytes.
  if (has_unread_ && may_receive) return handle_frames(handler);
  const uint64_t pause_ms = throttle_ms();
  MutableBytes room;
  if (may_receive) {
    if (slab_ != nullptr && slab_->bytes.size() - slab_used_ < kSlabRoomBytes) slab_.reset();
    if (slab_ == nullptr) {
      slab_ = slabs_->take();
      slab_used_ = 0;
    }
    if (slab_ != nullptr && pause_ms == 0) room = MutableBytes(slab_->bytes).subspan(slab_used_);
  }
  // Writers that hold every slab are no fault of the peer: its silence does not count then, nor
  // when nothing is due from it.
  const uint64_t now = clock_.monotonic_ms();
  if (room.empty() || !awaits_reply()) last_received_ms_ = now;
  uint64_t limit_ms = options_.timeout_ms == 0 ? UINT64_MAX : options_.timeout_ms;
  const uint64_t silent_ms = now - last_received_ms_;
  if (silent_ms >= limit_ms) {
    return broken(Errc::kTimeout, "no bytes for " + std::to_string(limit_ms / 1000) + " s");
  }
  limit_ms -= silent_ms;
  if (wait_ms >= 0) limit_ms = std::min<uint64_t>(limit_ms, static_cast<uint64_t>(wait_ms));
  if (pause_ms > 0) limit_ms = std::min(limit_ms, pause_ms);
  limit_ms = std::min<uint64_t>(limit_ms, 1000);  // To look at stop_ and at the time.
  const Result<io::Pump::Turn> turned = pump_.turn(room, static_cast<int>(limit_ms));
  if (!turned) {
    Error error = turned.error();
    error.message = options_.peer + ": " + error.message;
    return std::unexpected(std::move(error));
  }
  if (turned->received_bytes == 0) {
    if (!turned->ended) return {};
    return end_of_stream();
  }
  last_received_ms_ = clock_.monotonic_ms();
  const ByteView bytes = ByteView(slab_->bytes).subspan(slab_used_, turned->received_bytes);
  slab_used_ += turned->received_bytes;
  deframer_.feed(bytes);
  return handle_frames(handler);
}

Status Conversation::end_of_stream() const {
  if (goodbye_seen_) return {};
  if (hello_done_) return broken(Errc::kClosed, "closed the connection in mid-session");
  // Too short for a frame, but no hello begins with such a length.
  Reader begin(ByteView(slab_->bytes).first(slab_used_));
  if (slab_used_ >= sizeof(uint32_t) && begin.u32() > kMaxHelloPayload) return not_superlifter();
  return broken(Errc::kClosed, "closed the connection without a hello");
}

// REQUIRES: the hello is not done: everything received lies in the first slab.
std::unexpected<Error> Conversation::not_superlifter() const {
  const ByteView first = ByteView(slab_->bytes).first(std::min<size_t>(slab_used_, 40));
  return broken(Errc::kProtocol,
                "is not superlifter: its first bytes were \"" + escape(as_text(first)) + "\"");
}

// All frames in what was fed.
Status Conversation::handle_frames(const ReadHandler& handler) {
  has_unread_ = true;
  while (true) {
    const Result<std::optional<wire::Frame>> next = deframer_.next();
    if (!next) {
      if (hello_done_) return broken(Errc::kProtocol, next.error().message);
      return not_superlifter();
    }
    const std::optional<wire::Frame>& frame = *next;
    if (!frame) {
      has_unread_ = false;
      return {};
    }
    if (const Status handled = on_frame(*frame, handler); !handled) return handled;
    if (waiting_packed_ != nullptr) return {};
  }
}

Status Conversation::on_frame(const wire::Frame& frame, const ReadHandler& handler) {
  const Type type = frame.header.type;
  if (!hello_done_) return on_hello(frame);
  if (type == Type::kData || type == Type::kItem) return on_read(frame, slab_, handler);
  if (type == Type::kPacked) return on_packed(frame, handler);
  if (type == Type::kPing || type == Type::kPong || type == Type::kGoodbye) {
    if (!frame.payload.empty()) return broken(Errc::kProtocol, "payload where none may be");
    if (type == Type::kGoodbye) {
      if (!goodbye_sent_) return broken(Errc::kClosed, "said goodbye in mid-session");
      goodbye_seen_ = true;
    }
    if (type == Type::kPing && pump_.unsent_bytes() < kMaxHelloPayload) {
      Bytes pong;
      wire::encode_empty(Type::kPong, frame.header.request, pong);
      pump_.send(std::move(pong));
    }
    return {};
  }
  return on_reply(frame);
}

Status Conversation::on_hello(const wire::Frame& frame) {
  const auto not_ours = [&] {
    return broken(Errc::kProtocol, "is not superlifter: it did not begin with a hello");
  };
  if (frame.header.request != 0) return not_ours();
  switch (frame.header.type) {
    case Type::kHello: {
      const Result<wire::ServerHello> hello = wire::decode_server_hello(frame.payload);
      if (!hello) return not_ours();
      if (hello->version != wire::kProtocolVersion) {
        return broken(Errc::kUnsupported,
                      "chose protocol version " + std::to_string(hello->version) +
                          "; this client speaks version " + std::to_string(wire::kProtocolVersion));
      }
      motd_ = hello->motd;
      hello_done_ = true;
      deframer_.set_most_payload_bytes(kMaxReplyPayload);
      return {};
    }
    case Type::kBusy: {
      const Result<wire::Busy> busy = wire::decode_busy(frame.payload);
      if (!busy) return not_ours();
      retry_after_ms_ = std::max<uint32_t>(busy->retry_after_ms, 1);
      if (busy->reason == Code::kDenied) return broken(Errc::kDenied, "access denied");
      return broken(Errc::kBusy, "is busy; it asks to come back in " +
                                     std::to_string((retry_after_ms_ + 999) / 1000) + " s");
    }
    case Type::kError: {
      const Result<wire::ErrorReply> error = wire::decode_error(frame.payload);
      if (!error) return not_ours();
      if (error->code == Code::kVersion) {
        return broken(Errc::kUnsupported,
                      "speaks protocol versions " + std::to_string(error->argument & 0xFFFFU) +
                          " to " + std::to_string(error->argument >> 16 & 0xFFFFU) +
                          "; this client speaks version " + std::to_string(wire::kProtocolVersion));
      }
      return broken(to_errc(error->code),
                    "refused the session: " + std::string(wire::to_text(error->code)));
    }
    default:
      return not_ours();
  }
}

Status Conversation::on_reply(const wire::Frame& frame) {
  const Type type = frame.header.type;
  const uint32_t id = frame.header.request;
  if (type == Type::kError) {
    const Result<wire::ErrorReply> error = wire::decode_error(frame.payload);
    if (!error) return broken(Errc::kProtocol, error.error().message);
    const std::string text(wire::to_text(error->code));
    if (id == 0) return broken(to_errc(error->code), "ended the session: " + text);
    const auto found = pending_.find(id);
    if (found == pending_.end()) {
      if (abandoned_.erase(id) > 0) return {};
      if (reads_.erase(id) > 0)
        return broken(to_errc(error->code), "refused to send files: " + text);
      return broken(Errc::kProtocol, "an error for a request that was not made");
    }
    found->second.failure = Error{to_errc(error->code), 0, options_.peer + ": " + text};
    found->second.argument = error->argument;
    found->second.done = true;
    return {};
  }
  const bool is_reply = type == Type::kModuleList || type == Type::kOpened ||
                        type == Type::kNodes || type == Type::kDigestList || type == Type::kSums;
  if (is_reply && abandoned_.contains(id)) return {};
  const auto found = pending_.find(id);
  if (!is_reply || found == pending_.end() || found->second.done) {
    return broken(Errc::kProtocol, "a frame that answers nothing (type " +
                                       std::to_string(static_cast<int>(type)) + ")");
  }
  Pending& pending = found->second;
  uint64_t held_bytes = pending.payload.size();
  if (type == Type::kNodes) {
    // Each node is asked for once, so the bound is one for all replies that wait.
    held_bytes = 0;
    for (const auto& [other, waiting] : pending_) {
      held_bytes += waiting.payload.size() - std::min(waiting.payload.size(), kNodesFrameBytes);
    }
  }
  if (held_bytes + frame.payload.size() > pending.most_bytes) {
    return broken(Errc::kProtocol, "a reply is larger than it may be");
  }
  pending.payload.insert(pending.payload.end(), frame.payload.begin(), frame.payload.end());
  pending.done = type == Type::kOpened || (frame.header.flags & wire::kLast) != 0;
  return {};
}

Status Conversation::on_read(const wire::Frame& frame, const SlabRef& slab,
                             const ReadHandler& handler) {
  ReadEvent event;
  event.request = frame.header.request;
  if (abandoned_.contains(event.request)) return {};
  if (!handler || !reads_.contains(event.request)) {
    return broken(Errc::kProtocol, "file content that was not asked for");
  }
  if (frame.header.type == Type::kItem) {
    const Result<wire::ItemStatus> item = wire::decode_item(frame.payload);
    if (!item) return broken(Errc::kProtocol, item.error().message);
    event.is_item_status = true;
    event.decided = true;
    event.index = item->index;
    event.status = item->status;
    return handler(event);
  }
  const bool ends = frame.ends_frame && (frame.header.flags & wire::kItemEnd) != 0;
  const bool ok = (frame.header.flags & wire::kItemOk) != 0;
  if (ok && (frame.header.flags & wire::kItemEnd) == 0) {
    return broken(Errc::kProtocol, "a DATA frame that is OK before its end");
  }
  event.slab = slab;
  event.bytes = frame.payload;
  event.ends_item = ends;
  event.decided = ends && ok;
  return handler(event);
}

Status Conversation::on_packed(const wire::Frame& frame, const ReadHandler& handler) {
  const uint32_t id = frame.header.request;
  if (abandoned_.contains(id)) return {};
  const auto read = reads_.find(id);
  if (!handler || read == reads_.end() || !read->second) {
    return broken(Errc::kProtocol, "packed file content that was not asked for");
  }
  std::shared_ptr<Slab> slab = unpacked_slabs_->take();
  if (slab == nullptr) {
    // The payload may be the deframer's, for as long as it is not asked for the next frame.
    waiting_packed_ =
        std::make_unique<WaitingPacked>(id, Bytes(frame.payload.begin(), frame.payload.end()));
    return {};
  }
  return unpack(id, frame.payload, std::move(slab), handler);
}

// Goes on with a PACKED that waits, if there is a slab for it now.
Status Conversation::unpack_waiting(const ReadHandler& handler) {
  if (abandoned_.contains(waiting_packed_->request)) {
    waiting_packed_.reset();
    return {};
  }
  if (!handler) return {};
  std::shared_ptr<Slab> slab = unpacked_slabs_->take();
  if (slab == nullptr) return {};
  const std::unique_ptr<WaitingPacked> waiting = std::move(waiting_packed_);
  return unpack(waiting->request, waiting->bytes, std::move(slab), handler);
}

// Unpacks into the slab, and handles the frames that come out.
Status Conversation::unpack(uint32_t request, ByteView packed, std::shared_ptr<Slab> slab,
                            const ReadHandler& handler) {
  const auto damaged = [&] { return broken(Errc::kProtocol, "packed file content is damaged"); };
  // Exactly one frame, whose header states a size within the bound: no more is ever written. The
  // window needs no bound of its own, since a frame that is unpacked in one go has the slab as its
  // window.
  const unsigned long long size_bytes = ZSTD_getFrameContentSize(packed.data(), packed.size());
  if (size_bytes == ZSTD_CONTENTSIZE_UNKNOWN || size_bytes == ZSTD_CONTENTSIZE_ERROR ||
      size_bytes == 0 || size_bytes > kMaxPackedBytes ||
      ZSTD_findFrameCompressedSize(packed.data(), packed.size()) != packed.size()) {
    return damaged();
  }
  if (unpacker_ == nullptr) unpacker_.reset(ZSTD_createDCtx());
  CHECK(unpacker_ != nullptr);
  const size_t unpacked = ZSTD_decompressDCtx(unpacker_.get(), slab->bytes.data(),
                                              slab->bytes.size(), packed.data(), packed.size());
  if (ZSTD_isError(unpacked) != 0 || unpacked != size_bytes) return damaged();
  const SlabRef content = std::move(slab);
  wire::Deframer frames(kMaxPackedBytes);
  frames.feed(ByteView(content->bytes).first(unpacked));
  while (true) {
    const Result<std::optional<wire::Frame>> next = frames.next();
    if (!next) return broken(Errc::kProtocol, next.error().message);
    const std::optional<wire::Frame>& frame = *next;
    if (!frame) break;
    const wire::FrameHeader& header = frame->header;
    if (header.request != request || (header.type != Type::kData && header.type != Type::kItem)) {
      return broken(Errc::kProtocol, "packed is what may not be");
    }
    if (const Status handled = on_read(*frame, content, handler); !handled) return handled;
  }
  if (!frames.at_border()) return damaged();
  return {};
}

Status Conversation::keep_alive() {
  if (is_stopped()) return broken(Errc::kClosed, "interrupted");
  const uint64_t now = clock_.monotonic_ms();
  if (now - last_sent_ms_ < kKeepAliveMs) return {};
  Bytes ping;
  wire::encode_empty(Type::kPing, 0, ping);
  send_frame(std::move(ping));
  last_received_ms_ = now;
  return receive({}, 0);
}

void Conversation::finish() {
  Bytes goodbye;
  wire::encode_empty(Type::kGoodbye, 0, goodbye);
  pump_.send(std::move(goodbye));
  goodbye_sent_ = true;
  const uint64_t until = clock_.monotonic_ms() + kGoodbyeMs;
  while (!goodbye_seen_ && clock_.monotonic_ms() < until) {
    if (!receive({}, kGoodbyeMs)) return;
  }
}

}  // namespace superlifter::client
