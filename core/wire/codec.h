// Encoding and decoding of every message of PROTOCOL.md. Decoders are total functions on hostile
// bytes: each bound is checked before anything is allocated, and the value is whole or an error.
//
// encode(message, request, out) appends a whole frame, header included.
// decode_<message>(payload) borrows from the payload. kTruncated or kProtocol.
#pragma once

#include <cstdint>

#include "core/base/bytes.h"
#include "core/base/result.h"
#include "core/wire/message.h"

namespace superlifter::wire {

void encode(const ClientHello& hello, Bytes& out);
void encode(const ServerHello& hello, Bytes& out);
void encode(const Busy& busy, Bytes& out);
void encode(const ErrorReply& error, uint32_t request, Bytes& out);
void encode(const Open& open, uint32_t request, Bytes& out);
void encode(const Opened& opened, uint32_t request, Bytes& out);
void encode(const TreeRequest& tree, uint32_t request, Bytes& out);
void encode(const DigestsRequest& digests, uint32_t request, Bytes& out);
// REQUIRES: items of one entry that stand side by side ascend and do not overlap.
void encode(const ReadRequest& read, uint32_t request, Bytes& out);
// REQUIRES: the same, a level and a width as PROTOCOL.md has them, and no count of 0.
void encode(const SignatureRequest& signature, uint32_t request, Bytes& out);
void encode(const ItemStatus& item, uint32_t request, Bytes& out);
// MODULES, CANCEL, CANCELLED, PING, PONG, GOODBYE: a header alone.
void encode_empty(Type type, uint32_t request, Bytes& out);

// The module list as one run of bytes, to be cut into MODULE_LIST frames by the sender.
Bytes encode_module_list(const ModuleList& list);

[[nodiscard]] Result<ClientHello> decode_client_hello(ByteView payload);
[[nodiscard]] Result<ServerHello> decode_server_hello(ByteView payload);
[[nodiscard]] Result<Busy> decode_busy(ByteView payload);
[[nodiscard]] Result<ErrorReply> decode_error(ByteView payload);
[[nodiscard]] Result<Open> decode_open(ByteView payload);
[[nodiscard]] Result<Opened> decode_opened(ByteView payload);
[[nodiscard]] Result<TreeRequest> decode_tree(ByteView payload);
[[nodiscard]] Result<DigestsRequest> decode_digests(ByteView payload);
[[nodiscard]] Result<ReadRequest> decode_read(ByteView payload, uint8_t flags);
[[nodiscard]] Result<SignatureRequest> decode_signature(ByteView payload);
[[nodiscard]] Result<ItemStatus> decode_item(ByteView payload);
// The joined payloads of MODULE_LIST.
[[nodiscard]] Result<ModuleList> decode_module_list(ByteView payload);

}  // namespace superlifter::wire
