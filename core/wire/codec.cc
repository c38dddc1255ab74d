#include "core/wire/codec.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/base/coding.h"
#include "core/base/limits.h"
#include "core/wire/frame.h"

namespace superlifter::wire {
namespace {

constexpr uint8_t kProvisionalFlag = 0x01;  // [opened-flags]
constexpr uint8_t kOwnersFlag = 0x02;       // [opened-flags]
constexpr uint8_t kTreeAll = 0;             // [tree-kind]
constexpr uint8_t kTreeListed = 1;          // [tree-kind]

// Appends a frame whose payload `write` makes. The header says all but the length.
template <class Write>
void frame(FrameHeader header, Bytes& out, Write write) {
  const size_t at = out.size();
  encode_frame_header(header, out);
  Writer writer(out);
  write(writer);
  header.length_bytes = static_cast<uint32_t>(out.size() - at - kFrameHeaderBytes);
  Bytes bytes;
  encode_frame_header(header, bytes);
  std::copy(bytes.begin(), bytes.end(), out.begin() + static_cast<ptrdiff_t>(at));
}

template <class Write>
void frame(Type type, uint32_t request, Bytes& out, Write write) {
  frame({.length_bytes = 0, .type = type, .flags = 0, .request = request}, out, write);
}

bool is_signature_level(unsigned level) {
  return level >= kFinestSignatureLevel && level <= kCoarsestSignatureLevel && level % 2 == 0;
}

// A number of a list that is counted from the end of the item before, when that has the same entry.
// Both the number and the end are at most INT64_MAX and twice that, so no sum wraps.
uint64_t read_relative(Reader& reader, bool same_entry, uint64_t end_before) {
  const uint64_t base = same_entry ? end_before : 0;
  const uint64_t number = base + reader.varint_at_most(INT64_MAX);
  if (base > INT64_MAX || number > INT64_MAX) reader.invalidate();
  return number;
}

void write_features(const std::vector<std::string_view>& features, Writer& writer) {
  writer.varint(features.size());
  for (const std::string_view feature : features) {
    writer.counted(feature);
  }
}

std::vector<std::string_view> read_features(Reader& reader) {
  std::vector<std::string_view> features;
  const uint64_t count = reader.varint_at_most(kMaxFeatures);
  for (uint64_t i = 0; i < count && reader.ok(); ++i) {
    features.push_back(reader.counted(kMaxFeatureBytes));
  }
  return features;
}

void read_magic(Reader& reader) {
  if (as_text(reader.bytes(kMagic.size())) != kMagic) reader.invalidate();
}

Code read_code(Reader& reader) {
  const uint16_t code = reader.u16();
  if (code <= kLastCode) return static_cast<Code>(code);
  reader.invalidate();
  return Code::kInternal;
}

hash::Sha256 read_sha256(Reader& reader) {
  hash::Sha256 digest;
  const ByteView bytes = reader.bytes(digest.bytes.size());
  if (!bytes.empty()) std::copy(bytes.begin(), bytes.end(), digest.bytes.begin());
  return digest;
}

template <class Message>
Result<Message> finish(const Reader& reader, Message message, std::string_view what) {
  if (const Status end = reader.finish(what); !end) return std::unexpected(end.error());
  return message;
}

}  // namespace

std::string_view to_text(Code code) {
  switch (code) {
    case Code::kOk:
      return "ok";
    case Code::kProtocol:
      return "protocol error";
    case Code::kVersion:
      return "no common protocol version";
    case Code::kNotFound:
      return "not found";
    case Code::kDenied:
      return "access denied";
    case Code::kBusy:
      return "busy";
    case Code::kStale:
      return "changed since it was indexed";
    case Code::kGone:
      return "generation is no longer kept";
    case Code::kIo:
      return "unreadable on the server";
    case Code::kTimeout:
      return "timeout";
    case Code::kShutdown:
      return "server is shutting down";
    case Code::kNotReady:
      return "not indexed yet";
    case Code::kTooSlow:
      return "slower than the server's minimum rate";
    case Code::kInternal:
      return "internal server error";
  }
  return "unknown code";
}

void encode(const ClientHello& hello, Bytes& out) {
  frame(Type::kHello, 0, out, [&](Writer& writer) {
    writer.bytes(as_bytes(kMagic));          // [hello-magic]
    writer.u16(hello.version_min);           // [hello-version-min]
    writer.u16(hello.version_max);           // [hello-version-max]
    write_features(hello.features, writer);  // [hello-features]
    writer.counted(hello.agent);             // [hello-agent]
  });
}

Result<ClientHello> decode_client_hello(ByteView payload) {
  Reader reader(payload);
  ClientHello hello;
  read_magic(reader);                            // [hello-magic]
  hello.version_min = reader.u16();              // [hello-version-min]
  hello.version_max = reader.u16();              // [hello-version-max]
  hello.features = read_features(reader);        // [hello-features]
  hello.agent = reader.counted(kMaxAgentBytes);  // [hello-agent]
  if (hello.version_min > hello.version_max) reader.invalidate();
  return finish(reader, std::move(hello), "HELLO");
}

void encode(const ServerHello& hello, Bytes& out) {
  frame(Type::kHello, 0, out, [&](Writer& writer) {
    writer.bytes(as_bytes(kMagic));          // [hello-magic]
    writer.u16(hello.version);               // [hello-version]
    write_features(hello.features, writer);  // [hello-features]
    writer.counted(hello.agent);             // [hello-agent]
    writer.u32(hello.idle_timeout_ms);       // [hello-idle-timeout]
    writer.counted(hello.motd);              // [hello-motd]
  });
}

Result<ServerHello> decode_server_hello(ByteView payload) {
  Reader reader(payload);
  ServerHello hello;
  read_magic(reader);                            // [hello-magic]
  hello.version = reader.u16();                  // [hello-version]
  hello.features = read_features(reader);        // [hello-features]
  hello.agent = reader.counted(kMaxAgentBytes);  // [hello-agent]
  hello.idle_timeout_ms = reader.u32();          // [hello-idle-timeout]
  hello.motd = reader.counted(kMaxMotdBytes);    // [hello-motd]
  return finish(reader, std::move(hello), "HELLO");
}

void encode(const Busy& busy, Bytes& out) {
  frame(Type::kBusy, 0, out, [&](Writer& writer) {
    writer.u16(static_cast<uint16_t>(busy.reason));  // [busy-reason]
    writer.u32(busy.retry_after_ms);                 // [busy-retry-after]
  });
}

Result<Busy> decode_busy(ByteView payload) {
  Reader reader(payload);
  Busy busy;
  busy.reason = read_code(reader);     // [busy-reason]
  busy.retry_after_ms = reader.u32();  // [busy-retry-after]
  return finish(reader, busy, "BUSY");
}

void encode(const ErrorReply& error, uint32_t request, Bytes& out) {
  frame(Type::kError, request, out, [&](Writer& writer) {
    writer.u16(static_cast<uint16_t>(error.code));  // [error-code]
    writer.u64(error.argument);                     // [error-argument]
  });
}

Result<ErrorReply> decode_error(ByteView payload) {
  Reader reader(payload);
  ErrorReply error;
  error.code = read_code(reader);  // [error-code]
  error.argument = reader.u64();   // [error-argument]
  return finish(reader, error, "ERROR");
}

void encode(const Open& open, uint32_t request, Bytes& out) {
  frame(Type::kOpen, request, out,
        [&](Writer& writer) { writer.counted(open.module); });  // [open-module]
}

Result<Open> decode_open(ByteView payload) {
  Reader reader(payload);
  Open open;
  open.module = reader.counted(kMaxModuleNameBytes);  // [open-module]
  return finish(reader, open, "OPEN");
}

void encode(const Opened& opened, uint32_t request, Bytes& out) {
  frame(Type::kOpened, request, out, [&](Writer& writer) {
    writer.u64(opened.generation);    // [opened-generation]
    writer.bytes(opened.root.bytes);  // [opened-root]
    const unsigned flags =
        (opened.provisional ? kProvisionalFlag : 0U) | (opened.has_owners ? kOwnersFlag : 0U);
    writer.u8(static_cast<uint8_t>(flags));  // [opened-flags]
    writer.u16(opened.mode);                 // [opened-mode]
    writer.i64(opened.mtime_s);              // [opened-mtime]
    writer.u32(opened.mtime_ns);             // [opened-mtime-ns]
    writer.counted(opened.owner);            // [opened-owner]
    writer.counted(opened.group);            // [opened-group]
    writer.u64(opened.entries);              // [opened-entries]
    writer.u64(opened.files);                // [opened-files]
    writer.u64(opened.bytes);                // [opened-bytes]
    writer.u32(opened.nodes);                // [opened-nodes]
    writer.u64(opened.nodes_bytes);          // [opened-nodes-bytes]
    writer.u8(opened.signature_level);       // [opened-signature-level]
  });
}

Result<Opened> decode_opened(ByteView payload) {
  Reader reader(payload);
  Opened opened;
  opened.generation = reader.u64();   // [opened-generation]
  opened.root = read_sha256(reader);  // [opened-root]
  const uint8_t flags = reader.u8();  // [opened-flags]
  opened.provisional = (flags & kProvisionalFlag) != 0;
  opened.has_owners = (flags & kOwnersFlag) != 0;
  opened.mode = reader.u16();                         // [opened-mode]
  opened.mtime_s = reader.i64();                      // [opened-mtime]
  opened.mtime_ns = reader.u32();                     // [opened-mtime-ns]
  opened.owner = reader.counted(kMaxOwnerNameBytes);  // [opened-owner]
  opened.group = reader.counted(kMaxOwnerNameBytes);  // [opened-group]
  opened.entries = reader.u64();                      // [opened-entries]
  opened.files = reader.u64();                        // [opened-files]
  opened.bytes = reader.u64();                        // [opened-bytes]
  opened.nodes = reader.u32();                        // [opened-nodes]
  opened.nodes_bytes = reader.u64();                  // [opened-nodes-bytes]
  opened.signature_level = reader.u8();               // [opened-signature-level]
  if (opened.signature_level != 0 && !is_signature_level(opened.signature_level)) {
    reader.invalidate();
  }
  if ((flags & ~(kProvisionalFlag | kOwnersFlag)) != 0 || opened.generation == 0 ||
      opened.mode > 07777 || opened.mtime_ns > 999'999'999 || opened.entries > kMaxEntries ||
      opened.files > opened.entries || opened.nodes == 0) {
    reader.invalidate();
  }
  return finish(reader, opened, "OPENED");
}

void encode(const TreeRequest& tree, uint32_t request, Bytes& out) {
  CHECK(tree.nodes.size() <= kMaxTreeNodes);
  frame(Type::kTree, request, out, [&](Writer& writer) {
    writer.u8(tree.all ? kTreeAll : kTreeListed);  // [tree-kind]
    if (tree.all) return;
    writer.varint(tree.nodes.size());  // [tree-nodes]
    for (const hash::Sha256& node : tree.nodes) {
      writer.bytes(node.bytes);
    }
  });
}

Result<TreeRequest> decode_tree(ByteView payload) {
  Reader reader(payload);
  TreeRequest tree;
  const uint8_t kind = reader.u8();  // [tree-kind]
  tree.all = kind == kTreeAll;
  if (kind == kTreeListed) {
    const uint64_t count = reader.varint_at_most(kMaxTreeNodes);  // [tree-nodes]
    if (count == 0) reader.invalidate();
    for (uint64_t i = 0; i < count && reader.ok(); ++i) {
      tree.nodes.push_back(read_sha256(reader));
    }
  } else if (kind != kTreeAll) {
    reader.invalidate();
  }
  return finish(reader, std::move(tree), "TREE");
}

void encode(const DigestsRequest& digests, uint32_t request, Bytes& out) {
  CHECK(digests.ranges.size() <= kMaxDigestRanges);
  frame(Type::kDigests, request, out, [&](Writer& writer) {
    writer.u8(static_cast<uint8_t>(digests.kind));  // [digests-kind]
    writer.varint(digests.ranges.size());           // [digests-ranges]
    uint64_t end = 0;
    for (const EntryRange& range : digests.ranges) {
      CHECK(range.first >= end && range.count > 0);
      writer.varint(range.first - end);  // [digests-gap]
      writer.varint(range.count);        // [digests-count]
      end = uint64_t{range.first} + range.count;
    }
  });
}

Result<DigestsRequest> decode_digests(ByteView payload) {
  Reader reader(payload);
  DigestsRequest digests;
  const uint8_t kind = reader.u8();  // [digests-kind]
  if (kind == static_cast<uint8_t>(DigestKind::kSha256)) {
    digests.kind = DigestKind::kSha256;
  } else if (kind != static_cast<uint8_t>(DigestKind::kXxh128)) {
    reader.invalidate();
  }
  const uint64_t count = reader.varint_at_most(kMaxDigestRanges);  // [digests-ranges]
  uint64_t end = 0;
  for (uint64_t i = 0; i < count && reader.ok(); ++i) {
    const uint64_t first = end + reader.varint_at_most(kMaxEntries);  // [digests-gap]
    const uint64_t length = reader.varint_at_most(kMaxEntries);       // [digests-count]
    end = first + length;
    if (length == 0 || end > uint64_t{kMaxEntries} + 1) {
      reader.invalidate();
      break;
    }
    digests.ranges.push_back(
        {.first = static_cast<uint32_t>(first), .count = static_cast<uint32_t>(length)});
  }
  return finish(reader, std::move(digests), "DIGESTS");
}

void encode(const ReadRequest& read, uint32_t request, Bytes& out) {
  CHECK(read.items.size() <= kMaxReadItems);
  const FrameHeader header{.length_bytes = 0,
                           .type = Type::kRead,
                           .flags = read.may_pack ? kMayPack : uint8_t{0},
                           .request = request};
  frame(header, out, [&](Writer& writer) {
    writer.varint(read.items.size());  // [read-items]
    ReadItem before;
    for (const ReadItem& item : read.items) {
      const bool same = &item != &read.items.front() && item.entry == before.entry;
      const uint64_t base = same ? before.offset + before.length_bytes : 0;
      CHECK(item.offset >= base);
      writer.varint(item.entry);          // [read-entry]
      writer.varint(item.offset - base);  // [read-offset]
      writer.varint(item.length_bytes);   // [read-length]
      before = item;
    }
  });
}

Result<ReadRequest> decode_read(ByteView payload, uint8_t flags) {
  Reader reader(payload);
  ReadRequest read;
  read.may_pack = (flags & kMayPack) != 0;
  const uint64_t count = reader.varint_at_most(kMaxReadItems);  // [read-items]
  if (count == 0) reader.invalidate();
  ReadItem before;
  for (uint64_t i = 0; i < count && reader.ok(); ++i) {
    ReadItem item;
    item.entry = static_cast<uint32_t>(reader.varint_at_most(kMaxEntries));  // [read-entry]
    item.offset = read_relative(reader, i > 0 && item.entry == before.entry,
                                before.offset + before.length_bytes);  // [read-offset]
    item.length_bytes = reader.varint_at_most(INT64_MAX);              // [read-length]
    read.items.push_back(item);
    before = item;
  }
  return finish(reader, std::move(read), "READ");
}

void encode(const SignatureRequest& signature, uint32_t request, Bytes& out) {
  CHECK(signature.items.size() <= kMaxSignatureItems);
  CHECK(is_signature_level(signature.level));
  CHECK(signature.width_bytes >= kLeastSumBytes && signature.width_bytes <= kMostSumBytes);
  frame(Type::kSignature, request, out, [&](Writer& writer) {
    writer.u8(static_cast<uint8_t>(signature.level));        // [signature-level]
    writer.u8(static_cast<uint8_t>(signature.width_bytes));  // [signature-width]
    writer.varint(signature.items.size());                   // [signature-items]
    SignatureItem before;
    for (const SignatureItem& item : signature.items) {
      const bool same = &item != &signature.items.front() && item.entry == before.entry;
      const uint64_t base = same ? before.first_block + before.block_count : 0;
      CHECK(item.first_block >= base && item.block_count > 0);
      writer.varint(item.entry);               // [signature-entry]
      writer.varint(item.first_block - base);  // [signature-first]
      writer.varint(item.block_count);         // [signature-count]
      before = item;
    }
  });
}

Result<SignatureRequest> decode_signature(ByteView payload) {
  Reader reader(payload);
  SignatureRequest signature;
  signature.level = reader.u8();        // [signature-level]
  signature.width_bytes = reader.u8();  // [signature-width]
  if (!is_signature_level(signature.level) || signature.width_bytes < kLeastSumBytes ||
      signature.width_bytes > kMostSumBytes) {
    reader.invalidate();
  }
  const uint64_t count = reader.varint_at_most(kMaxSignatureItems);  // [signature-items]
  if (count == 0) reader.invalidate();
  SignatureItem before;
  for (uint64_t i = 0; i < count && reader.ok(); ++i) {
    SignatureItem item;
    item.entry = static_cast<uint32_t>(reader.varint_at_most(kMaxEntries));  // [signature-entry]
    item.first_block = read_relative(reader, i > 0 && item.entry == before.entry,
                                     before.first_block + before.block_count);  // [signature-first]
    item.block_count = reader.varint_at_most(INT64_MAX);                        // [signature-count]
    if (item.block_count == 0) reader.invalidate();
    signature.items.push_back(item);
    before = item;
  }
  return finish(reader, std::move(signature), "SIGNATURE");
}

void encode(const ItemStatus& item, uint32_t request, Bytes& out) {
  frame(Type::kItem, request, out, [&](Writer& writer) {
    writer.u32(item.index);                          // [item-index]
    writer.u16(static_cast<uint16_t>(item.status));  // [item-status]
  });
}

Result<ItemStatus> decode_item(ByteView payload) {
  Reader reader(payload);
  ItemStatus item;
  item.index = reader.u32();        // [item-index]
  item.status = read_code(reader);  // [item-status]
  if (item.index >= kMaxReadItems) reader.invalidate();
  return finish(reader, item, "ITEM");
}

void encode_empty(Type type, uint32_t request, Bytes& out) {
  encode_frame_header({.length_bytes = 0, .type = type, .flags = 0, .request = request}, out);
}

Bytes encode_module_list(const ModuleList& list) {
  CHECK(list.modules.size() <= kMaxModules);
  Bytes out;
  Writer writer(out);
  writer.varint(list.modules.size());  // [modules-list]
  for (const ModuleEntry& module : list.modules) {
    writer.counted(module.name);     // [module-name]
    writer.counted(module.comment);  // [module-comment]
    writer.u64(module.generation);   // [module-generation]
    writer.u64(module.entries);      // [module-entries]
    writer.u64(module.files);        // [module-files]
    writer.u64(module.bytes);        // [module-bytes]
  }
  return out;
}

Result<ModuleList> decode_module_list(ByteView payload) {
  Reader reader(payload);
  ModuleList list;
  const uint64_t count = reader.varint_at_most(kMaxModules);  // [modules-list]
  for (uint64_t i = 0; i < count && reader.ok(); ++i) {
    ModuleEntry module;
    module.name = reader.counted(kMaxModuleNameBytes);  // [module-name]
    module.comment = reader.counted(kMaxCommentBytes);  // [module-comment]
    module.generation = reader.u64();                   // [module-generation]
    module.entries = reader.u64();                      // [module-entries]
    module.files = reader.u64();                        // [module-files]
    module.bytes = reader.u64();                        // [module-bytes]
    list.modules.push_back(module);
  }
  return finish(reader, std::move(list), "MODULE_LIST");
}

}  // namespace superlifter::wire
