#include "core/session/session.h"

#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>
#include <variant>

#include "core/base/check.h"
#include "core/base/coding.h"
#include "core/base/limits.h"
#include "core/wire/codec.h"

namespace superlifter::session {
namespace {

using wire::Code;
using wire::Type;

// How long a client should wait before it asks again for a module that has no generation yet.
constexpr uint64_t kNotReadyRetryMs = 1000;
// zstd level of listed nodes: they are compressed per request, so it must cost little. Level 1 runs
// at some 480 MB/s and the nodes of a usual update are one or two megabytes.
constexpr int kNodesLevel = 1;

Code to_code(const Error& error) {
  switch (error.code) {
    case Errc::kNotFound:
      return Code::kNotFound;
    case Errc::kDenied:
      return Code::kDenied;
    case Errc::kBusy:
      return Code::kBusy;
    case Errc::kStale:
      return Code::kStale;
    case Errc::kGone:
      return Code::kNotReady;
    default:
      return Code::kInternal;
  }
}

// One file of a READ on its way from the request to the outbox.
struct ItemState {
  uint64_t file_id = 0;  // Of the FileRequest in flight or answered.
  bool answered = false;
  bool large = false;
  Code status = Code::kOk;         // What the peer will be told, as far as is known.
  Bytes data;                      // Small: the bytes.
  std::shared_ptr<OpenFile> file;  // Large: open.
  Validators expected;
  uint64_t offset = 0;  // Large: where the next DATA frame begins.
  uint64_t end = 0;
  uint64_t sent_position = 0;  // Large: outbox position after its last byte.
  uint32_t index = 0;
  uint32_t entry = 0;
};

// What an engine's answer says about an item.
Code judge(const FileReply& reply, const ItemState& state) {
  const auto content = [](Validators validators) {
    validators.ctime_s = 0;
    validators.ctime_ns = 0;
    return validators;
  };
  const bool is_gone =
      reply.sys_errno == ENOENT || reply.sys_errno == ENOTDIR || reply.sys_errno == ELOOP;
  if (reply.sys_errno != 0) return is_gone ? Code::kStale : Code::kIo;
  const bool shrunk = state.file != nullptr && state.file->shrunk.load(std::memory_order_relaxed);
  const bool whole = state.large || reply.data.size() == state.end - state.offset;
  const bool same = reply.is_regular && content(reply.validators) == content(state.expected);
  return same && whole && !shrunk ? Code::kOk : Code::kStale;
}

}  // namespace

// A request that waits for its turn or is being answered.
struct Session::Request {
  uint32_t id = 0;
  Type type = Type::kPing;
  bool cancelled = false;
  std::string module;                            // OPEN
  wire::TreeRequest tree;                        // TREE
  wire::DigestsRequest digests;                  // DIGESTS
  wire::ReadRequest read;                        // READ
  std::shared_ptr<const Generation> generation;  // As it was when the answer began.
  bool begun = false;

  // TREE "all": a range of the generation's file that goes out frame by frame.
  FileRange blob;
  // TREE listed, MODULES: bytes that go out frame by frame.
  Bytes made;
  size_t made_sent = 0;
  // DIGESTS: where we are.
  size_t range = 0;
  uint32_t range_done = 0;

  // READ.
  size_t next_to_open = 0;      // Index of the next item to ask the engine for.
  std::deque<ItemState> ahead;  // Asked for; the front is the next to be sent.
  std::deque<ItemState>
      unchecked;             // Large items whose last byte must leave before they are checked.
  uint64_t ahead_bytes = 0;  // Memory that answers to `ahead` take.
  size_t open_files = 0;     // Large items in `ahead` and `unchecked`.
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
      valid = keep(wire::decode_read(frame.payload), request->read);
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
  return std::exchange(file_requests_, {});
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
    (request.type == Type::kRead ? counters_.bytes_data : counters_.bytes_manifest) += made;
    if (!done) return;
    queue_.pop_front();
  }
}

bool Session::answer(Request& request, Outbox& outbox) {
  if (!request.begun) {
    request.begun = true;
    request.generation = generation_;
    const bool needs_generation = request.type == Type::kTree || request.type == Type::kDigests ||
                                  request.type == Type::kRead;
    // Requests may be sent behind an OPEN without waiting for it; when it failed, so do they.
    if (needs_generation && generation_ == nullptr) {
      reply_error(request, outbox, Code::kNotFound);
      return true;
    }
    if (needs_generation && !generation_->is_kept()) {
      reply_error(request, outbox, Code::kGone);
      return true;
    }
  }
  switch (request.type) {
    case Type::kModules:
      return answer_modules(request, outbox);
    case Type::kOpen:
      return answer_open(request, outbox);
    case Type::kTree:
      return answer_tree(request, outbox);
    case Type::kDigests:
      return answer_digests(request, outbox);
    default:
      return answer_read(request, outbox);
  }
}

void Session::reply_error(Request& request, Outbox& outbox, Code code, uint64_t argument) {
  Bytes bytes;
  wire::encode(wire::ErrorReply{.code = code, .argument = argument}, request.id, bytes);
  outbox.push(std::move(bytes));
}

bool Session::answer_modules(Request& request, Outbox& outbox) {
  if (request.made.empty()) {
    const std::vector<ModuleSummary> modules = store_.modules();
    wire::ModuleList list;
    for (const ModuleSummary& module : modules) {
      list.modules.push_back({.name = module.name,
                              .comment = module.comment,
                              .generation = module.generation,
                              .entries = module.totals.entries,
                              .files = module.totals.files,
                              .bytes = module.totals.bytes});
    }
    request.made = wire::encode_module_list(list);
  }
  return answer_blob(request, outbox);
}

bool Session::answer_open(Request& request, Outbox& outbox) {
  Result<std::shared_ptr<const Generation>> opened = store_.open(request.module);
  if (!opened) {
    const Code code = to_code(opened.error());
    reply_error(request, outbox, code, code == Code::kNotReady ? kNotReadyRetryMs : 0);
    return true;
  }
  generation_ = std::move(*opened);
  module_ = request.module;
  const tree::RootMetadata metadata = generation_->root_metadata();
  const tree::Totals totals = generation_->totals();
  Bytes bytes;
  wire::encode(wire::Opened{.generation = generation_->number(),
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
                            .nodes_bytes = generation_->nodes_bytes()},
               request.id, bytes);
  outbox.push(std::move(bytes));
  return true;
}

// Sends request.made or request.blob, frame by frame, the last one with its flag.
bool Session::answer_blob(Request& request, Outbox& outbox) {
  const Type type = request.type == Type::kModules ? Type::kModuleList : Type::kNodes;
  const bool from_file = request.blob.file != nullptr;
  while (outbox.queued_bytes() < kOutboxHighWaterBytes) {
    const uint64_t left =
        from_file ? request.blob.length_bytes : request.made.size() - request.made_sent;
    const uint64_t part = std::min<uint64_t>(left, kDataFrameBytes);
    const bool last = part == left;
    Bytes bytes;
    wire::encode_frame_header({.length_bytes = static_cast<uint32_t>(part),
                               .type = type,
                               .flags = last ? wire::kLast : uint8_t{0},
                               .request = request.id},
                              bytes);
    if (from_file) {
      outbox.push(std::move(bytes));
      outbox.push(FileRange{request.blob.file, request.blob.offset, part});
      request.blob.offset += part;
      request.blob.length_bytes -= part;
    } else {
      const ByteView piece = ByteView(request.made).subspan(request.made_sent, part);
      bytes.insert(bytes.end(), piece.begin(), piece.end());
      request.made_sent += part;
      outbox.push(std::move(bytes));
    }
    if (last) return true;
  }
  return false;
}

bool Session::answer_tree(Request& request, Outbox& outbox) {
  if (request.made.empty() && request.blob.file == nullptr) {
    if (request.tree.all) {
      request.blob = request.generation->all_nodes();
      if (request.blob.file == nullptr) {
        reply_error(request, outbox, Code::kInternal);
        return true;
      }
    } else {
      Bytes plain;
      Writer writer(plain);
      for (const hash::Sha256& digest : request.tree.nodes) {
        const ByteView node = request.generation->node(digest);
        if (node.empty()) {
          reply_error(request, outbox, Code::kNotFound);
          return true;
        }
        writer.varint(node.size());  // [nodes-list]
        writer.bytes(node);
      }
      request.made.resize(ZSTD_compressBound(plain.size()));
      const size_t size = ZSTD_compress(request.made.data(), request.made.size(), plain.data(),
                                        plain.size(), kNodesLevel);
      CHECK(ZSTD_isError(size) == 0);
      request.made.resize(size);
    }
  }
  return answer_blob(request, outbox);
}

bool Session::answer_digests(Request& request, Outbox& outbox) {
  const bool sha = request.digests.kind == wire::DigestKind::kSha256;
  const size_t width = sha ? sizeof(hash::Sha256) : sizeof(hash::Xxh128);
  const uint64_t entries = request.generation->totals().entries + 1;
  const std::vector<wire::EntryRange>& ranges = request.digests.ranges;
  if (!ranges.empty() && uint64_t{ranges.back().first} + ranges.back().count > entries) {
    reply_error(request, outbox, Code::kNotFound);
    return true;
  }
  while (outbox.queued_bytes() < kOutboxHighWaterBytes) {
    Bytes payload;
    while (request.range < ranges.size() && payload.size() < kDataFrameBytes) {
      const wire::EntryRange& range = ranges[request.range];
      const auto room = static_cast<uint32_t>((kDataFrameBytes - payload.size()) / width);
      const uint32_t count = std::min(range.count - request.range_done, room);
      if (count == 0) break;
      const uint32_t first = range.first + request.range_done;
      const ByteView digests = sha ? request.generation->sha_digests(first, count)
                                   : request.generation->xxh_digests(first, count);
      payload.insert(payload.end(), digests.begin(), digests.end());
      if (digests.empty()) payload.resize(payload.size() + count * width);
      request.range_done += count;
      if (request.range_done < range.count) break;
      ++request.range;
      request.range_done = 0;
    }
    const bool last = request.range == ranges.size();
    Bytes header;
    wire::encode_frame_header({.length_bytes = static_cast<uint32_t>(payload.size()),
                               .type = Type::kDigestList,
                               .flags = last ? wire::kLast : uint8_t{0},
                               .request = request.id},
                              header);
    outbox.push(std::move(header));
    outbox.push(std::move(payload));
    if (last) return true;
  }
  return false;
}

// --- READ
// ------------------------------------------------------------------------------------------
//
//   items:   0 1 2 3 4 5 6 7 8 …
//            └─┬─┘ └──┬──┘ └─ not opened yet (next_to_open)
//              │      └ ahead: asked of the engine, answers come in any order
//              └ sent; of those, `unchecked` wait for their last byte to leave, then for a recheck

// Asks the engine for files until enough is on its way.
void Session::look_ahead(Request& request) {
  const std::vector<wire::ReadItem>& items = request.read.items;
  while (request.next_to_open < items.size() && request.ahead.size() < kLookaheadFiles &&
         request.ahead_bytes < kLookaheadBytes && request.open_files < kMaxOpenFilesAhead) {
    const wire::ReadItem& item = items[request.next_to_open];
    ItemState state;
    state.index = static_cast<uint32_t>(request.next_to_open++);
    state.entry = item.entry;
    Result<Generation::File> file = request.generation->file(item.entry);
    if (!file) {
      state.answered = true;
      state.status = to_code(file.error());
      request.ahead.push_back(std::move(state));
      continue;
    }
    const uint64_t size = file->validators.size_bytes;
    const uint64_t length = item.length_bytes == 0 ? size : item.length_bytes;
    state.expected = file->validators;
    state.offset = std::min(item.offset, size);
    state.end = state.offset + std::min(length, size - state.offset);
    state.large = state.end - state.offset > kSmallFileBytes;
    state.file_id = next_file_id_++;
    FileRequest ask;
    ask.id = state.file_id;
    ask.kind = state.large ? FileRequest::Kind::kOpen : FileRequest::Kind::kReadSmall;
    ask.open = std::move(file->open);
    ask.offset = state.offset;
    ask.length_bytes = state.large ? 0 : static_cast<uint32_t>(state.end - state.offset);
    request.ahead_bytes += ask.length_bytes;
    request.open_files += state.large ? 1 : 0;
    file_requests_.push_back(std::move(ask));
    request.ahead.push_back(std::move(state));
  }
}

void Session::on_file(FileReply reply) {
  if (queue_.empty()) return;  // The request was cancelled or the session is over.
  Request& request = *queue_.front();
  const auto matches = [&](const ItemState& state) { return state.file_id == reply.id; };
  auto found = std::find_if(request.ahead.begin(), request.ahead.end(), matches);
  if (found == request.ahead.end()) {
    found = std::find_if(request.unchecked.begin(), request.unchecked.end(), matches);
    if (found == request.unchecked.end()) return;
  }
  ItemState& state = *found;
  state.answered = true;
  state.status = judge(reply, state);
  // Where only ctime differs (a link, a rename, a chmod) the content is served and the module
  // queued for a rescan: the digest at the client decides.
  if (state.status == Code::kOk && reply.validators != state.expected) {
    request.generation->report_stale(state.entry);
  }
  if (state.status == Code::kStale) {
    ++counters_.files_stale;
    request.generation->report_stale(state.entry);
  }
  if (state.file == nullptr) state.file = std::move(reply.file);
  state.data = std::move(reply.data);
}

// Sends (more of) the item at the front. True when it has left `ahead`.
bool Session::send_item(Request& request, Outbox& outbox) {
  ItemState& state = request.ahead.front();
  const auto item_status = [&](const ItemState& item) {
    Bytes bytes;
    wire::encode(wire::ItemStatus{.index = item.index, .status = item.status}, request.id, bytes);
    outbox.push(std::move(bytes));
  };
  const uint64_t held = state.large ? 0 : state.end - state.offset;
  if (state.status != Code::kOk) {
    item_status(state);
    if (state.file_id != 0) request.ahead_bytes -= held;
    if (state.large) --request.open_files;
    request.ahead.pop_front();
    return true;
  }
  const auto data_header = [&](uint64_t length, uint8_t flags) {
    Bytes bytes;
    wire::encode_frame_header({.length_bytes = static_cast<uint32_t>(length),
                               .type = Type::kData,
                               .flags = flags,
                               .request = request.id},
                              bytes);
    outbox.push(std::move(bytes));
  };
  if (!state.large) {
    data_header(state.data.size(), wire::kItemEnd | wire::kItemOk);
    outbox.push(std::move(state.data));
    request.ahead_bytes -= held;
    request.ahead.pop_front();
    ++counters_.files_sent;
    return true;
  }
  const uint64_t part = std::min<uint64_t>(state.end - state.offset, kDataFrameBytes);
  const bool last = state.offset + part == state.end;
  data_header(part, last ? wire::kItemEnd : uint8_t{0});
  outbox.push(FileRange{state.file, state.offset, part});
  state.offset += part;
  if (!last) return false;
  state.sent_position = outbox.pushed_position();
  state.answered = false;
  state.file_id = 0;
  request.unchecked.push_back(std::move(state));
  request.ahead.pop_front();
  return true;
}

bool Session::answer_read(Request& request, Outbox& outbox) {
  while (true) {
    // Large items whose last byte has left: look once more whether they changed meanwhile.
    for (ItemState& state : request.unchecked) {
      if (state.file_id != 0 || state.sent_position > outbox.left_position()) continue;
      state.file_id = next_file_id_++;
      FileRequest ask;
      ask.id = state.file_id;
      ask.kind = FileRequest::Kind::kRecheck;
      ask.file = state.file;
      file_requests_.push_back(std::move(ask));
    }
    while (!request.unchecked.empty() && request.unchecked.front().answered) {
      const ItemState& state = request.unchecked.front();
      Bytes bytes;
      wire::encode(wire::ItemStatus{.index = state.index, .status = state.status}, request.id,
                   bytes);
      outbox.push(std::move(bytes));
      if (state.status == Code::kOk) ++counters_.files_sent;
      request.unchecked.pop_front();
      --request.open_files;
    }
    if (outbox.queued_bytes() >= kOutboxHighWaterBytes) return false;
    look_ahead(request);
    if (request.ahead.empty()) {
      return request.unchecked.empty() && request.next_to_open == request.read.items.size();
    }
    if (!request.ahead.front().answered) return false;
    send_item(request, outbox);
  }
}

}  // namespace superlifter::session
