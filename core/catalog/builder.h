// Builder: writes one immutable generation file (FORMAT.md). The file is written whole into a
// temporary name, synced, and only then given its name, so a reader never sees a part of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <unordered_set>
#include <vector>

#include "core/base/result.h"
#include "core/catalog/catalog.h"
#include "core/hash/digest.h"
#include "core/tree/node.h"
#include "core/tree/table.h"

namespace superlifter::catalog {

// The nodes of one tree, ready to be stored: bytes with a varint length before each, and where each
// begins (at its length).
class NodePack {
 public:
  // A node that is here already (equal directories have equal nodes) is passed over.
  void add(const hash::Sha256& digest, ByteView node);
  // Makes room, so that a large tree's nodes are not copied as they grow.
  void reserve(size_t nodes, size_t bytes);
  ByteView bytes() const { return bytes_; }
  uint32_t count() const { return static_cast<uint32_t>(index_.size()); }

  struct Entry {
    hash::Sha256 digest;
    uint64_t offset = 0;  // Of the node's own bytes.
    uint32_t length_bytes = 0;
  };
  // Sorts by digest. Nothing may be added after it.
  void sort();
  const std::vector<Entry>& index() const { return index_; }
  // REQUIRES: sort() was called. Empty when it is not there.
  ByteView find(const hash::Sha256& digest) const;

 private:
  // A SHA-256 is its own hash.
  struct FirstBytes {
    size_t operator()(const hash::Sha256& digest) const;
  };

  Bytes bytes_;
  std::vector<Entry> index_;
  std::unordered_set<hash::Sha256, FirstBytes> seen_;  // Until sort().
};

enum class AllNodes : bool { kOmit, kCompress };

// What a generation is made of; borrows everything.
struct Parts {
  // root_metadata, totals, has_owners, node_count and nodes_bytes follow from the parts below; what
  // stands in them here is not read.
  Header header;
  tree::TableView table;
  const NodePack* nodes = nullptr;
  std::span<const hash::Xxh128> xxh;
  std::span<const hash::Sha256> sha;  // May be empty.
  std::span<const LocalStat> local;
  // Empty where header.pack is 0; else an offset for each entry (0: none kept). Those of hard links
  // are those of their group's first entry.
  std::span<const uint64_t> signature_offsets;
  AllNodes all_nodes = AllNodes::kCompress;
};

// Writes `parts` as `name` below the directory fd, durably, readable by all (0644). Until it is
// whole it is `name`.tmp. kIo (a full disk leaves nothing behind), kLimit for a base path or source
// too long. REQUIRES: nodes was sorted; xxh and local (and sha and
// signature_offsets, unless empty) have table.count() elements; the header's pack is as its
// comments say.
[[nodiscard]] Status build(int directory_fd, const std::string& name, const Parts& parts);

}  // namespace superlifter::catalog
