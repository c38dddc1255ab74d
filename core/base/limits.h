// Every compiled-in bound in one place. What a peer or a disk can make us hold, wait for or loop
// over is bounded by one of these or by the configuration. PROTOCOL.md cites those that are part of
// the protocol.
#pragma once

#include <cstddef>
#include <cstdint>

namespace superlifter {

// --- File system -------------------------------------------------------------------------------
constexpr size_t kMaxNameBytes = 255;          // Linux NAME_MAX.
constexpr size_t kMaxPathBytes = 4095;         // Linux PATH_MAX less its NUL; longer is refused.
constexpr size_t kMaxSymlinkBytes = 4095;      // A symlink target is a path.
constexpr size_t kMaxDepth = 2048;             // kMaxPathBytes allows no more one-byte names.
constexpr uint32_t kMaxEntries = 0xFFFF'FFF0;  // Entry numbers are 32 bits.

// --- Directory nodes (core/tree) ---------------------------------------------------------------
constexpr size_t kMaxNodeChildren = 512;    // Entries of a leaf, children of an index node.
constexpr size_t kMinNodeChildren = 32;     // No border before this many: every level shrinks.
constexpr uint32_t kNodeBorderMask = 0x7F;  // A border where 7 bits of the name's hash are zero.
constexpr size_t kMaxIndexLevels = 8;       // 32^8 entries are more than kMaxEntries.
constexpr size_t kMaxOwnerNameBytes = 255;
// 512 entries, each with a name, a symlink target or link path, and two owner names.
constexpr size_t kMaxNodeBytes =
    64 + kMaxNodeChildren * (64 + kMaxNameBytes + kMaxSymlinkBytes + 2 * kMaxOwnerNameBytes);

// --- Frames (core/wire) ------------------------------------------------------------------------
constexpr size_t kFrameHeaderBytes = 12;
constexpr size_t kMaxReplyPayload = 1 << 20;      // Server to client.
constexpr size_t kMaxRequestPayload = 256 << 10;  // Client to server.
constexpr size_t kMaxHelloPayload = 8 << 10;      // Before the hello is done, either way.
constexpr size_t kMaxFeatures = 32;
constexpr size_t kMaxFeatureBytes = 32;
constexpr size_t kMaxAgentBytes = 128;
constexpr size_t kMaxMotdBytes = 4096;
constexpr size_t kMaxModuleNameBytes = 128;
constexpr size_t kMaxCommentBytes = 1024;
constexpr size_t kMaxModules = 4096;
constexpr size_t kMaxRequestsInFlight = 64;  // Per session.
constexpr size_t kMaxTreeNodes = 4096;       // Node digests in one TREE.
constexpr size_t kMaxDigestRanges = 8192;    // Ranges in one DIGESTS.
constexpr size_t kMaxReadItems = 1024;       // Items in one READ.
constexpr size_t kMaxSignatureItems = 4096;  // Items in one SIGNATURE.
constexpr size_t kMaxPackedBytes = 1 << 20;  // Content of one PACKED.

// --- Session (core/session) --------------------------------------------------------------------
constexpr size_t kSmallFileBytes = 64 << 10;       // Up to this a range is read into memory.
constexpr size_t kDataFrameBytes = 1 << 20;        // Payload of a DATA frame of a large range.
constexpr size_t kLookaheadFiles = 256;            // Opened ahead of what is being sent.
constexpr size_t kLookaheadBytes = 512 << 10;      // Read ahead of what is being sent.
constexpr size_t kMaxOpenFilesAhead = 16;          // Large files held open by one session.
constexpr size_t kOutboxHighWaterBytes = 1 << 20;  // No more is produced above this.
constexpr size_t kMaxRangesTogether = 64;          // Of one file, read with one open.
// Content that one session may have summed on demand: at 3 GB/s a third of a second.
constexpr uint64_t kOnDemandBytes = 1 << 30;

// --- Configuration (config) --------------------------------------------------------------------
constexpr size_t kMaxConfigBytes = 1
                                   << 20;  // The document, and again with its aliases written out.
constexpr size_t kMaxConfigValues = 256
                                    << 10;  // Keys, values, lists and maps; aliases written out.
constexpr size_t kMaxConfigDepth = 16;      // The schema needs 4.
constexpr size_t kMaxConfigErrors = 100;    // Reported in one run.
constexpr size_t kMaxListenAddresses = 64;
constexpr size_t kMaxConfigListItems = 1024;  // Patterns or prefixes in one list.

static_assert(kMaxTreeNodes * 32 + 64 <= kMaxRequestPayload);
static_assert(kDataFrameBytes <= kMaxReplyPayload);
static_assert(kSmallFileBytes <= kMaxReplyPayload);
static_assert(kMaxHelloPayload >= kMaxMotdBytes + kMaxFeatures * (kMaxFeatureBytes + 1) + 256);

}  // namespace superlifter
