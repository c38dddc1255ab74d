// The numbers of FORMAT.md that writer and reader share.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/catalog/catalog.h"
#include "core/tree/table.h"

namespace superlifter::catalog {

constexpr std::string_view kGenerationMagic = "superlgn";
constexpr uint32_t kGenerationVersion = 2;
constexpr size_t kHeaderPageBytes = 4096;
constexpr size_t kHeaderChecksumAt = kHeaderPageBytes - 8;
constexpr size_t kSectionAlignment = 64;  // A cache line; more than any stored type asks for.
constexpr size_t kNodeIndexRowBytes = 48;
constexpr uint32_t kProvisionalFlag = 1;
constexpr uint32_t kOwnersFlag = 2;

// In the order of the section table.
enum class Section : size_t {
  kRecords,
  kStrings,
  kOwners,
  kNodes,
  kNodeIndex,
  kXxh,
  kSha,
  kLocal,
  kAllNodes,
  kContext,
  kSignatureOffsets,
};
constexpr size_t kSectionCount = 11;
constexpr std::array<std::string_view, kSectionCount> kSectionNames = {
    "records", "strings", "owners",    "nodes",   "node index",       "xxh",
    "sha",     "local",   "all nodes", "context", "signature offsets"};

// Packs of signatures.
constexpr std::string_view kPackMagic = "superlsg";
constexpr uint32_t kPackVersion = 1;
constexpr size_t kPackHeaderBytes = 32;
constexpr size_t kPackChecksumBytes = 4;  // Before the sums of each signature.

constexpr uint64_t align_section(uint64_t offset) {
  return (offset + kSectionAlignment - 1) / kSectionAlignment * kSectionAlignment;
}

// Records and local parts are stored as they stand in memory: section 3 of FORMAT.md is this
// layout.
static_assert(offsetof(tree::Record, size_bytes) == 0 && offsetof(tree::Record, mtime_s) == 8);
static_assert(offsetof(tree::Record, name_offset) == 16 && offsetof(tree::Record, mtime_ns) == 24);
static_assert(offsetof(tree::Record, parent) == 28 &&
              offsetof(tree::Record, subtree_entries) == 32);
static_assert(offsetof(tree::Record, link_or_files) == 36);
static_assert(offsetof(tree::Record, name_bytes) == 40 && offsetof(tree::Record, mode) == 42);
static_assert(offsetof(tree::Record, owner) == 44 && offsetof(tree::Record, group) == 46);
static_assert(offsetof(tree::Record, kind) == 48 && offsetof(tree::Record, reserved) == 49);
static_assert(offsetof(LocalStat, inode) == 0 && offsetof(LocalStat, ctime_s) == 8);
static_assert(offsetof(LocalStat, ctime_ns) == 16 && offsetof(LocalStat, reserved) == 20);
static_assert(offsetof(LocalStat, device) == 24);
static_assert(sizeof(hash::Xxh128) == 16 && sizeof(hash::Sha256) == 32);

}  // namespace superlifter::catalog
