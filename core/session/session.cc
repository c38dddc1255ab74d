#include "core/session/session.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "core/base/limits.h"
#include "core/session/list_answer.h"
#include "core/session/read_answer.h"
#include "core/session/signature_answer.h"
#include "core/wire/codec.h"

namespace superlifter::session {
namespace {

using wire::Code;
using wire::Type;

// How long a client should wait before it asks again for a module that has no generation yet.
constexpr uint64_t kNotReadyRetryMs = 1000;

// The counter that a reply's bytes belong to.
uint64_t& bytes_of(Type request, Counters& counters) {
  if (request == Type::kRead) return counters.bytes_data;
  return request == Type::kSignature ? counters.bytes_signature : counters.bytes_manifest;
}

}  // namespace

// A request that waits for its turn or is being answered.
struct Session::Request {
  uint32_t id = 0;
  Type type = Type::kPing;
  bool cancelled = false;
  std::string module;                // OPEN
  wire::TreeRequest tree;            // TREE
  wire::DigestsRequest digests;      // DIGESTS
  wire::ReadRequest read;            // READ
  wire::SignatureRequest signature;  // SIGNATURE

  // From its turn on, the one that its type calls for.
  bool begun = false;
  std::unique_ptr<BlobAnswer> blob_answer;
  std::unique_ptr<DigestsAnswer> digests_answer;
  std::unique_ptr<ReadAnswer> read_answer;
  std::unique_ptr<SignatureAnswer> signature_answer;
};

Session::Session(Options options, Store& store)
    : options_(std::move(options)), store_(store), deframer_(kMaxHelloPayload) {}

Session::~Session() = default;

void Session::feed(ByteView bytes) {
  counters_.bytes_received += bytes.size();
  if (state_ == State::kEnded || state_ == State::kClosing) return;
  deframer_.feed(bytes);
  while (state_ == State::kHello || state_ == State::kReady) {
    const Result<std::optional<wire::Frame>> frame = deframer_.next();
    if (!frame) return break_off(Code::kProtocol);
    if (!*frame) return;
    on_frame(**frame);
  }
}

bool Session::wants_input() const {
  return queue_.size() < kMaxRequestsInFlight;
}

void Session::on_frame(const wire::Frame& frame) {
  if (state_ == State::kHello) return on_hello(frame);
  const bool has_payload = !frame.payload.empty();
  switch (frame.header.type) {
    case Type::kPing:
      if (has_payload) return break_off(Code::kProtocol);
      // A client that does not read its pongs may not make us hold them.
      if (control_.size() > kMaxHelloPayload) return break_off(Code::kProtocol);
      return wire::encode_empty(Type::kPong, frame.header.request, control_);
    case Type::kPong:
      if (has_payload) break_off(Code::kProtocol);
      return;
    case Type::kCancel:
      if (has_payload) return break_off(Code::kProtocol);
      return cancel(frame.header.request);
    case Type::kGoodbye:
      if (has_payload) return break_off(Code::kProtocol);
      state_ = State::kClosing;
      return;
    case Type::kError: {
      const Result<wire::ErrorReply> error = wire::decode_error(frame.payload);
      outcome_ = error ? error->code : Code::kProtocol;
      queue_.clear();
      state_ = State::kEnded;
      return;
    }
    default:
      return on_request(frame);
  }
}

void Session::on_hello(const wire::Frame& frame) {
  if (frame.header.type != Type::kHello || frame.header.request != 0)
    return break_off(Code::kProtocol);
  const Result<wire::ClientHello> hello = wire::decode_client_hello(frame.payload);
  if (!hello) return break_off(Code::kProtocol);
  if (hello->version_min > wire::kProtocolVersion || hello->version_max < wire::kProtocolVersion) {
    return break_off(Code::kVersion,
                     uint64_t{wire::kProtocolVersion} | uint64_t{wire::kProtocolVersion} << 16);
  }
  wire::encode(wire::ServerHello{.version = wire::kProtocolVersion,
                                 .features = {},
                                 .agent = options_.agent,
                                 .idle_timeout_ms = options_.idle_timeout_ms,
                                 .motd = options_.motd},
               control_);
  deframer_.set_most_payload_bytes(kMaxRequestPayload);
  state_ = State::kReady;
}

void Session::on_request(const wire::Frame& frame) {
  const bool used = std::any_of(queue_.begin(), queue_.end(), [&](const auto& request) {
    return request->id == frame.header.request;
  });
  // The driver stops reading at the bound; what was already on its way may go over it by one read.
  if (frame.header.request == 0 || used || queue_.size() >= 2 * kMaxRequestsInFlight) {
    return break_off(Code::kProtocol);
  }
  auto request = std::make_unique<Request>();
  request->id = frame.header.request;
  request->type = frame.header.type;
  const auto keep = [&](auto decoded, auto& into) {
    if (!decoded) return false;
    into = std::move(*decoded);
    return true;
  };
  bool valid = false;
  switch (frame.header.type) {
    case Type::kModules:
      valid = frame.payload.empty();
      break;
    case Type::kOpen: {
      const Result<wire::Open> open = wire::decode_open(frame.payload);
      valid = open.has_value();
      if (open) request->module = open->module;
      break;
    }
    case Type::kTree:
      valid = keep(wire::decode_tree(frame.payload), request->tree);
      break;
    case Type::kDigests:
      valid = keep(wire::decode_digests(frame.payload), request->digests);
      break;
    case Type::kRead:
      valid = keep(wire::decode_read(frame.payload, frame.header.flags), request->read);
      break;
    case Type::kSignature:
      valid = keep(wire::decode_signature(frame.payload), request->signature);
      break;
    default:
      break;  // A reply type, or a second HELLO.
  }
  if (!valid) return break_off(Code::kProtocol);
  ++counters_.requests;
  queue_.push_back(std::move(request));
}

void Session::cancel(uint32_t id) {
  for (const auto& request : queue_) {
    if (request->id != id) continue;
    request->cancelled = true;
    return;
  }
  if (control_.size() > kMaxHelloPayload) return break_off(Code::kProtocol);
  wire::encode_empty(Type::kCancelled, id, control_);
}

void Session::break_off(Code code, uint64_t argument) {
  if (state_ == State::kEnded) return;
  wire::encode(wire::ErrorReply{.code = code, .argument = argument}, 0, control_);
  outcome_ = code;
  queue_.clear();
  state_ = State::kEnded;
}

void Session::end(Code code) {
  break_off(code);
}

std::vector<FileRequest> Session::take_file_requests() {
  return files_.take();
}

void Session::advance(Outbox& outbox) {
  while (true) {
    // Frames are pushed whole, so between two of them is always a frame border.
    if (!control_.empty()) {
      (hello_done() && counters_.bytes_hello == 0 ? counters_.bytes_hello
                                                  : counters_.bytes_other) += control_.size();
      outbox.push(std::exchange(control_, {}));
    }
    if (state_ == State::kEnded || state_ == State::kHello) return;
    if (queue_.empty()) {
      if (state_ != State::kClosing) return;
      Bytes goodbye;
      wire::encode_empty(Type::kGoodbye, 0, goodbye);
      counters_.bytes_other += goodbye.size();
      outbox.push(std::move(goodbye));
      state_ = State::kEnded;
      return;
    }
    Request& request = *queue_.front();
    if (request.cancelled) {
      wire::encode_empty(Type::kCancelled, request.id, control_);
      queue_.pop_front();
      continue;
    }
    const uint64_t before = outbox.pushed_position();
    const bool done = answer(request, outbox);
    const uint64_t made = outbox.pushed_position() - before;
    bytes_of(request.type, counters_) += made;
    if (!done) return;
    queue_.pop_front();
  }
}

bool Session::answer(Request& request, Outbox& outbox) {
  if (!request.begun) {
    request.begun = true;
    const Code code = begin(request, outbox);
    if (code != Code::kOk) {
      push_error(code, code == Code::kNotReady ? kNotReadyRetryMs : 0, request.id, outbox);
      return true;
    }
  }
  switch (request.type) {
    case Type::kModules:
    case Type::kTree:
      return request.blob_answer->advance(request.id, outbox);
    case Type::kDigests:
      return request.digests_answer->advance(outbox);
    case Type::kRead:
      return request.read_answer->advance(outbox);
    case Type::kSignature:
      return request.signature_answer->advance(outbox);
    default:
      return true;  // OPEN: all is said.
  }
}

// Makes the request's answer, about the generation that is open now. What the peer is told instead
// when there is none to give.
Code Session::begin(Request& request, Outbox& outbox) {
  if (request.type == Type::kOpen) return open(request, outbox);
  if (request.type == Type::kModules) {
    request.blob_answer = std::make_unique<BlobAnswer>(BlobAnswer::of_modules(store_));
    return Code::kOk;
  }
  // Requests may be sent behind an OPEN without waiting for it; when it failed, so do they.
  if (generation_ == nullptr) return Code::kNotFound;
  if (!generation_->is_kept()) return Code::kGone;
  const AnswerContext context{
      .request = request.id, .generation = generation_, .files = files_, .counters = counters_};
  const auto take = [](auto made, auto& into) {
    if (!made) return made.error();
    using Answer = typename decltype(made)::value_type;
    into = std::make_unique<Answer>(std::move(*made));
    return Code::kOk;
  };
  switch (request.type) {
    case Type::kTree:
      return take(BlobAnswer::of_tree(*generation_, request.tree), request.blob_answer);
    case Type::kDigests:
      return take(DigestsAnswer::of(context, std::move(request.digests)), request.digests_answer);
    case Type::kSignature:
      request.signature_answer =
          std::make_unique<SignatureAnswer>(context, std::move(request.signature));
      return Code::kOk;
    default:
      request.read_answer =
          std::make_unique<ReadAnswer>(context, std::move(request.read), options_.packer);
      return Code::kOk;
  }
}

Code Session::open(Request& request, Outbox& outbox) {
  Result<std::shared_ptr<const Generation>> opened = store_.open(request.module);
  if (!opened) return to_code(opened.error());
  generation_ = std::move(*opened);
  module_ = request.module;
  const tree::RootMetadata metadata = generation_->root_metadata();
  const tree::Totals totals = generation_->totals();
  Bytes bytes;
  wire::encode(
      wire::Opened{.generation = generation_->number(),
                   .root = generation_->root(),
                   .provisional = generation_->is_provisional(),
                   .has_owners = generation_->has_owners(),
                   .mode = metadata.mode,
                   .mtime_s = metadata.mtime_s,
                   .mtime_ns = metadata.mtime_ns,
                   .owner = metadata.owner,
                   .group = metadata.group,
                   .entries = totals.entries,
                   .files = totals.files,
                   .bytes = totals.bytes,
                   .nodes = generation_->node_count(),
                   .nodes_bytes = generation_->nodes_bytes(),
                   .signature_level = static_cast<uint8_t>(generation_->signature_level())},
      request.id, bytes);
  outbox.push(std::move(bytes));
  return Code::kOk;
}

void Session::on_file(FileReply reply) {
  if (queue_.empty()) return;  // The request was cancelled or the session is over.
  Request& request = *queue_.front();
  if (request.read_answer) {
    request.read_answer->on_file(std::move(reply));
  } else if (request.signature_answer) {
    request.signature_answer->on_file(std::move(reply));
  }
}

}  // namespace superlifter::session
