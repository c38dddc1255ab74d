// Directory nodes: the canonical, digested form of a directory, and the Merkle tree that they form.
//
// core/wire/PROTOCOL.md section 4 decides the bytes. A leaf node lists up to 512 entries; a
// directory with more is cut into leaves at names whose hash has 7 zero bits (so that one new name
// moves at most the borders next to it), and index nodes above list the leaves, by the same rule,
// until one node is left. That top node's SHA-256 stands in the parent directory's entry.
//
//   directory "pool" (1,000,000 entries)
//       index ─┬─ index ─┬─ leaf (≈160 entries)
//              │         └─ leaf
//              └─ index ── …
//
// What every client needs (names, modes, times, sizes) is in the node; the slow-changing bulk (16
// and 32 bytes of digest a file) is not. The node commits to it by two digests, and a client asks
// for file digests by entry number, only for the files it needs.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/base/bytes.h"
#include "core/base/result.h"
#include "core/hash/digest.h"
#include "core/tree/table.h"

namespace superlifter::tree {

// One entry as it stands in a leaf node. Views borrow from the node's bytes.
struct NodeEntry {
  Kind kind = Kind::kFile;
  uint16_t mode = 0;
  int64_t mtime_s = 0;
  uint32_t mtime_ns = 0;
  std::string_view name;
  std::string_view owner;  // Empty unless the node carries owners.
  std::string_view group;
  uint64_t size_bytes = 0;     // File: content. Directory: content beneath it.
  std::string_view target;     // Symlink.
  std::string_view link_path;  // File: path of the first entry of its hard-link group, else empty.
  hash::Sha256 node;           // Directory: digest of its top node.
  uint32_t subtree_entries = 0;  // Directory.
  uint32_t files = 0;            // Directory: regular files beneath it.
};

struct LeafNode {
  bool has_owners = false;
  hash::Xxh128
      xxh_commitment;  // XXH3-128 of the files' XXH3-128 digests in order; zero: not known.
  hash::Sha256 sha_commitment;  // SHA-256 of the files' SHA-256 digests in order; zero: not known.
  std::vector<NodeEntry> entries;
};

struct IndexChild {
  hash::Sha256 node;
  uint32_t entries = 0;         // Entry numbers that the child covers, subtrees included.
  std::string_view first_name;  // Name of its first entry, so that a look-up needs one leaf.
};

struct IndexNode {
  uint8_t level = 1;  // One more than its children's; leaves are level 0.
  std::vector<IndexChild> children;
};

using Node = std::variant<LeafNode, IndexNode>;

// Decodes one node and checks every rule of the format: order, names, bounds. Views borrow from
// `bytes`. kTruncated, kProtocol.
[[nodiscard]] Result<Node> decode_node(ByteView bytes);

// Appends the encoding. REQUIRES: the node keeps the rules that decode_node checks.
void encode_leaf(const LeafNode& leaf, Bytes& out);
void encode_index(const IndexNode& index, Bytes& out);

// File digests of a tree, by entry number; all zero for directories, symlinks, and what is not
// known.
struct FileDigests {
  std::span<const hash::Xxh128> xxh;  // count() each
  std::span<const hash::Sha256> sha;  // count() each, or empty: none known
};

// Receives each node of a tree once, children before parents.
using NodeSink = std::function<void(const hash::Sha256& digest, ByteView bytes)>;

// Encodes all nodes of a table and returns the root's digest. The same content gives the same bytes
// on every host. REQUIRES: Table::finish was called. Cost: linear; memory for one directory at a
// time.
hash::Sha256 encode_tree(const TableView& table, const FileDigests& digests, const NodeSink& sink);

// Looks a node up by digest; empty when it is not there. The bytes must outlive the call to expand.
using NodeSource = std::function<ByteView(const hash::Sha256& digest)>;

// What a leaf says about the digests of its files, and where its entries stand in a table.
struct LeafCommitment {
  uint32_t first_entry = 0;
  uint32_t entries = 0;  // Siblings from first_entry on.
  hash::Xxh128 xxh;      // LeafNode::xxh_commitment.
};

// Whether the digests of a leaf's files (by entry; a hard link has its first entry's) are the ones
// that the leaf commits to. True for a leaf that commits to nothing.
bool keeps_commitment(const TableView& table, const LeafCommitment& leaf,
                      std::span<const hash::Xxh128> digests);

struct ExpandLimits {
  uint64_t entries = 0;  // More than this is kLimit; guards against nodes shared at every level.
  // Told of each leaf with entries, in the order of the table; may be empty.
  std::function<void(const LeafCommitment&)> on_leaf;
};

// The root's own metadata, which stands in no node.
struct RootMetadata {
  uint16_t mode = 0755;
  int64_t mtime_s = 0;
  uint32_t mtime_ns = 0;
  std::string owner;
  std::string group;
};

// The Merkle tree below `root` (nodes whose digests were verified when they arrived) as a table.
// `base_path` is the path of that directory in its module, in whose terms hard-link groups are
// named: a group whose first path lies outside is led by its first entry inside. The entry counts
// that nodes state are compared with what is there; sums of files and bytes are made anew.
// kProtocol, kLimit, kNotFound (a node is missing).
[[nodiscard]] Result<Table> expand(const hash::Sha256& root, const RootMetadata& metadata,
                                   const NodeSource& source, const ExpandLimits& limits,
                                   std::string_view base_path = {});

// Calls `visit` with the digest of each node right below this one: an index node's children, or the
// top nodes of a leaf's directories.
void for_each_child(const Node& node, const std::function<void(const hash::Sha256&)>& visit);

}  // namespace superlifter::tree
