// Manifest: brings the directory nodes of a generation to the client.
//
//   first pull            TREE "all": one stream
//   state of a last pull  TREE with just the nodes that neither the state nor an earlier reply
//   holds,
//                         level by level, several requests in flight
//   ls, cat, one file     the nodes on one path
//
// Every node is verified against the digest that names it before it is used. The bytes that a
// server may send, and the entries that nodes may expand to, are bounded by what it stated in
// OPENED, and that by --max-entries and the memory of this machine.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "client/conversation.h"
#include "core/base/rel_path.h"
#include "core/base/result.h"
#include "core/catalog/builder.h"
#include "core/catalog/catalog.h"
#include "core/hash/digest.h"
#include "core/tree/node.h"
#include "core/tree/table.h"

namespace superlifter::client {

// OPENED, with text of its own.
struct OpenedModule {
  uint64_t generation = 0;
  hash::Sha256 root;
  bool provisional = false;
  bool has_owners = false;
  tree::RootMetadata metadata;
  tree::Totals totals;
  uint32_t nodes = 0;
  uint64_t nodes_bytes = 0;
  unsigned signature_level = 0;  // Finest that the server keeps; 0: none.
};

// Opens a module and checks that what it states can be held: kLimit names the numbers. kNotFound,
// kDenied name the module; kBusy while it has no generation yet, with retry_after_ms set.
[[nodiscard]] Result<OpenedModule> open_module(Conversation& conversation,
                                               const std::string& module, uint64_t max_entries,
                                               uint32_t& retry_after_ms);

// One entry of a module, found by its path.
struct Location {
  uint32_t entry = 0;  // Its number in the module.
  tree::Kind kind = tree::Kind::kDirectory;
  hash::Sha256 node;             // Directory: its top node.
  uint32_t subtree_entries = 0;  // Directory.
  uint32_t files = 0;            // Directory.
  uint64_t size_bytes = 0;
  std::string target;           // Symlink.
  tree::RootMetadata metadata;  // Mode, time, owners, of whatever kind.
};

class NodeStore {
 public:
  // Borrows all; `state` may be null.
  NodeStore(Conversation& conversation, const OpenedModule& opened, const catalog::Catalog* state)
      : conversation_(conversation), opened_(opened), state_(state) {}

  // The entry at `path`. kNotFound names it.
  [[nodiscard]] Result<Location> locate(const RelPath& path);
  // One node, fetched if need be; views borrow from this store until the next fetch.
  [[nodiscard]] Result<tree::Node> get(const hash::Sha256& digest);
  // Everything below a directory node.
  [[nodiscard]] Status fetch_below(const hash::Sha256& root);
  // The tree below a location as a table; fetch_below first. Its root is the location itself.
  // `leaves`, when given, gets what each leaf commits to.
  [[nodiscard]] Result<tree::Table> expand(
      const Location& location, const RelPath& path,
      std::vector<tree::LeafCommitment>* leaves = nullptr) const;
  // All nodes below `root` as a pack, taken from what was fetched and from the state. Ends this
  // store's use.
  [[nodiscard]] Result<catalog::NodePack> take_pack(const hash::Sha256& root);

  uint64_t fetched_bytes() const { return fetched_bytes_; }

 private:
  ByteView find(const hash::Sha256& digest) const;

  Status fetch_all();
  Status fetch(const std::vector<hash::Sha256>& digests);
  Status add_listed(const std::vector<hash::Sha256>& digests, size_t first, size_t count,
                    ByteView compressed);
  Result<Bytes> decompress(ByteView compressed);
  void add(const hash::Sha256& digest, ByteView node);

  struct DigestHash {
    size_t operator()(const hash::Sha256& digest) const;
  };

  Conversation& conversation_;
  const OpenedModule& opened_;
  const catalog::Catalog* state_;
  catalog::NodePack pack_;
  std::unordered_map<hash::Sha256, uint32_t, DigestHash> known_;  // To its place in pack_.index().
  uint64_t fetched_bytes_ = 0;                                    // Uncompressed.
};

}  // namespace superlifter::client
