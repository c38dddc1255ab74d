// The messages of PROTOCOL.md as plain structs, one a message. Text and bytes are views into the
// frame they were decoded from, for as long as that lives.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/base/bytes.h"
#include "core/hash/digest.h"

namespace superlifter::wire {

constexpr uint16_t kProtocolVersion = 1;
constexpr std::string_view kMagic = "superlft";

enum class Type : uint8_t {
  kHello = 1,
  kBusy = 2,
  kError = 3,
  kModules = 4,
  kModuleList = 5,
  kOpen = 6,
  kOpened = 7,
  kTree = 8,
  kNodes = 9,
  kDigests = 10,
  kDigestList = 11,
  kRead = 12,
  kData = 13,
  kItem = 14,
  kCancel = 15,
  kCancelled = 16,
  kPing = 17,
  kPong = 18,
  kGoodbye = 19,
  kSignature = 20,
  kSums = 21,
  kPacked = 22,
};

// Section 7 of PROTOCOL.md; the numbers are on the wire.
enum class Code : uint16_t {
  kOk = 0,
  kProtocol = 1,
  kVersion = 2,
  kNotFound = 3,
  kDenied = 4,
  kBusy = 5,
  kStale = 6,
  kGone = 7,
  kIo = 8,
  kTimeout = 9,
  kShutdown = 10,
  kNotReady = 11,
  kTooSlow = 12,
  kInternal = 13,
};
constexpr uint16_t kLastCode = 13;

// The word for a code, for logs and messages ("stale").
std::string_view to_text(Code code);

// Flags of MODULE_LIST, NODES, DIGEST_LIST, SUMS.
constexpr uint8_t kLast = 0x01;
// Flags of READ.
constexpr uint8_t kMayPack = 0x01;
// Flags of DATA.
constexpr uint8_t kItemEnd = 0x01;
constexpr uint8_t kItemOk = 0x02;

struct ClientHello {
  uint16_t version_min = kProtocolVersion;
  uint16_t version_max = kProtocolVersion;
  std::vector<std::string_view> features;
  std::string_view agent;
};

struct ServerHello {
  uint16_t version = kProtocolVersion;
  std::vector<std::string_view> features;
  std::string_view agent;
  uint32_t idle_timeout_ms = 0;
  std::string_view motd;
};

struct Busy {
  Code reason = Code::kBusy;
  uint32_t retry_after_ms = 0;
};

struct ErrorReply {
  Code code = Code::kInternal;
  uint64_t argument = 0;
};

struct ModuleEntry {
  std::string_view name;
  std::string_view comment;
  uint64_t generation = 0;
  uint64_t entries = 0;
  uint64_t files = 0;
  uint64_t bytes = 0;
};

struct ModuleList {
  std::vector<ModuleEntry> modules;
};

struct Open {
  std::string_view module;
};

struct Opened {
  uint64_t generation = 0;
  hash::Sha256 root;
  bool provisional = false;
  bool has_owners = false;
  uint16_t mode = 0;
  int64_t mtime_s = 0;
  uint32_t mtime_ns = 0;
  std::string_view owner;
  std::string_view group;
  uint64_t entries = 0;
  uint64_t files = 0;
  uint64_t bytes = 0;
  uint32_t nodes = 0;
  uint64_t nodes_bytes = 0;
  uint8_t signature_level = 0;  // 0: none are kept.
};

struct TreeRequest {
  bool all = false;
  std::vector<hash::Sha256> nodes;  // Empty when `all`.
};

enum class DigestKind : uint8_t { kXxh128 = 1, kSha256 = 2 };

struct EntryRange {
  uint32_t first = 0;
  uint32_t count = 0;
};

struct DigestsRequest {
  DigestKind kind = DigestKind::kXxh128;
  std::vector<EntryRange> ranges;  // Ascending, not overlapping, none empty.
};

struct ReadItem {
  uint32_t entry = 0;
  uint64_t offset = 0;
  uint64_t length_bytes = 0;  // 0: to the end of the file.
};

struct ReadRequest {
  std::vector<ReadItem> items;
  bool may_pack = false;  // The frame's flag.
};

// Levels of SIGNATURE are even; widths are of a sum.
constexpr unsigned kFinestSignatureLevel = 6;
constexpr unsigned kCoarsestSignatureLevel = 28;
constexpr unsigned kLeastSumBytes = 4;
constexpr unsigned kMostSumBytes = 8;

struct SignatureItem {
  uint32_t entry = 0;
  uint64_t first_block = 0;
  uint64_t block_count = 0;
};

struct SignatureRequest {
  unsigned level = 0;
  unsigned width_bytes = 0;  // Of a sum.
  std::vector<SignatureItem> items;
};

struct ItemStatus {
  uint32_t index = 0;
  Code status = Code::kOk;
};

}  // namespace superlifter::wire
