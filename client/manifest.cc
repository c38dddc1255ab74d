#include "client/manifest.h"

#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <unordered_set>

#include "core/base/coding.h"
#include "core/base/escape.h"
#include "core/base/limits.h"
#include "core/delta/block_length.h"
#include "core/wire/codec.h"

namespace superlifter::client {
namespace {

// What the client holds for one entry of a tree, nodes aside: table, name, digest, local part.
constexpr uint64_t kBytesPerEntry = 160;
// And for one node beside its bytes: places in the map, the pack's index and its set.
constexpr uint64_t kBytesPerNode = 192;
// Head, name, symlink target or link path, two owner names; a node's own head is less than one
// entry.
constexpr uint64_t kMostEntryBytes = 64 + kMaxNameBytes + kMaxSymlinkBytes + 2 * kMaxOwnerNameBytes;
constexpr int kMaxWindowLog = 23;  // PROTOCOL.md section 5.
constexpr size_t kNodesPerRequest =
    1024;  // Nodes in one TREE: replies come while others are asked for.
constexpr size_t kRequestsAhead = 16;

uint64_t physical_memory_bytes() {
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page = sysconf(_SC_PAGESIZE);
  return pages > 0 && page > 0 ? static_cast<uint64_t>(pages) * static_cast<uint64_t>(page) : kGiB;
}

Status check_size(const OpenedModule& opened, const std::string& module, uint64_t max_entries) {
  const std::string name = "module '" + escape(module) + "'";
  if (opened.totals.entries > max_entries) {
    return fail(Errc::kLimit, name + " has " + std::to_string(opened.totals.entries) +
                                  " entries, more than --max-entries " +
                                  std::to_string(max_entries));
  }
  // Every directory has a node, and every further one covers entries of its own; even a tree of
  // longest names and targets has no larger ones than this.
  const uint64_t most_nodes = 2 * (opened.totals.entries + 1);
  const uint64_t most_node_bytes = most_nodes * kMostEntryBytes;
  if (opened.nodes > most_nodes || opened.nodes_bytes > most_node_bytes) {
    return fail(Errc::kProtocol, name + ": the server states more directory nodes than " +
                                     std::to_string(opened.totals.entries) + " entries can have");
  }
  // Their bytes are held twice, as they came and as they are kept.
  const uint64_t need = opened.totals.entries * kBytesPerEntry + opened.nodes * kBytesPerNode +
                        2 * opened.nodes_bytes;
  if (need > physical_memory_bytes() / 2) {
    return fail(Errc::kLimit,
                name + " needs about " + std::to_string(need / kMiB) +
                    " MiB for its file list, more than half of this machine's memory (" +
                    std::to_string(physical_memory_bytes() / kMiB) + " MiB)");
  }
  return {};
}

}  // namespace

Result<OpenedModule> open_module(Conversation& conversation, const std::string& module,
                                 uint64_t max_entries, uint32_t& retry_after_ms) {
  const Result<Bytes> reply = conversation.wait(conversation.send_open(module));
  if (!reply) {
    if (reply.error().code == Errc::kBusy) {
      retry_after_ms =
          static_cast<uint32_t>(std::clamp<uint64_t>(conversation.error_argument(), 100, 60'000));
    }
    if (reply.error().code == Errc::kNotFound) {
      return fail(Errc::kNotFound, "module '" + escape(module) + "' is not found on " +
                                       conversation.peer() + ": `superlifter modules " +
                                       conversation.peer() + "` lists what it serves");
    }
    return fail_in("module '" + escape(module) + "'", reply.error());
  }
  const Result<wire::Opened> opened = wire::decode_opened(*reply);
  if (!opened) return std::unexpected(opened.error());
  OpenedModule out{
      .generation = opened->generation,
      .root = opened->root,
      .provisional = opened->provisional,
      .has_owners = opened->has_owners,
      .metadata = {.mode = opened->mode,
                   .mtime_s = opened->mtime_s,
                   .mtime_ns = opened->mtime_ns,
                   .owner = std::string(opened->owner),
                   .group = std::string(opened->group)},
      .totals = {.entries = opened->entries, .files = opened->files, .bytes = opened->bytes},
      .nodes = opened->nodes,
      .nodes_bytes = opened->nodes_bytes,
      .signature_level = delta::is_level(opened->signature_level) ? opened->signature_level : 0U};
  if (const Status fits = check_size(out, module, max_entries); !fits) {
    return std::unexpected(fits.error());
  }
  return out;
}

size_t NodeStore::DigestHash::operator()(const hash::Sha256& digest) const {
  size_t value = 0;
  std::memcpy(&value, digest.bytes.data(), sizeof(value));
  return value;
}

ByteView NodeStore::find(const hash::Sha256& digest) const {
  const auto found = known_.find(digest);
  if (found != known_.end()) {
    const catalog::NodePack::Entry& entry = pack_.index()[found->second];
    return pack_.bytes().subspan(entry.offset, entry.length_bytes);
  }
  return state_ != nullptr ? state_->node(digest) : ByteView();
}

void NodeStore::add(const hash::Sha256& digest, ByteView node) {
  if (!known_.try_emplace(digest, pack_.count()).second) return;
  pack_.add(digest, node);
}

// Decompresses one reply, within what the server said all nodes take.
Result<Bytes> NodeStore::decompress(ByteView compressed) {
  const auto broken = [](const std::string& what) {
    return fail(Errc::kProtocol, "directory nodes: " + what);
  };
  const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(),
                                                                   ZSTD_freeDCtx);
  ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, kMaxWindowLog);
  const uint64_t room = opened_.nodes_bytes - std::min(opened_.nodes_bytes, fetched_bytes_);
  Bytes out;
  ZSTD_inBuffer in{compressed.data(), compressed.size(), 0};
  size_t left = 1;
  while (left != 0) {
    const size_t used = out.size();
    // Grow by what is likely: nodes compress to about a third.
    out.resize(used + std::clamp<size_t>((in.size - in.pos) * 3, 64 << 10, 16 << 20));
    ZSTD_outBuffer piece{out.data() + used, out.size() - used, 0};
    left = ZSTD_decompressStream(context.get(), &piece, &in);
    out.resize(used + piece.pos);
    if (ZSTD_isError(left) != 0) return broken(ZSTD_getErrorName(left));
    if (out.size() > room) return broken("more bytes than the server said there are");
    if (left != 0 && piece.pos < piece.size && in.pos == in.size) {
      return fail(Errc::kTruncated, "directory nodes: the compressed stream ends too early");
    }
  }
  if (in.pos != in.size) return broken("bytes after the compressed stream");
  fetched_bytes_ += out.size();
  return out;
}

Status NodeStore::fetch_all() {
  const uint64_t most = ZSTD_compressBound(opened_.nodes_bytes) + 64;
  const Result<Bytes> reply =
      conversation_.wait(conversation_.send_tree({.all = true, .nodes = {}}, most));
  if (!reply) return std::unexpected(reply.error());
  const Result<Bytes> nodes = decompress(*reply);
  if (!nodes) return std::unexpected(nodes.error());
  Reader reader(*nodes);
  while (reader.ok() && reader.remaining() > 0) {
    const ByteView node = as_bytes(reader.counted(kMaxNodeBytes));  // [nodes-list]
    if (reader.ok()) add(hash::sha256(node), node);
    if (known_.size() > opened_.nodes) {
      return fail(Errc::kProtocol, "directory nodes: more than the server said there are");
    }
  }
  return reader.finish("directory nodes");
}

Status NodeStore::add_listed(const std::vector<hash::Sha256>& digests, size_t first, size_t count,
                             ByteView compressed) {
  const Result<Bytes> nodes = decompress(compressed);
  if (!nodes) return std::unexpected(nodes.error());
  Reader reader(*nodes);
  for (size_t i = first; i < first + count; ++i) {
    const ByteView node = as_bytes(reader.counted(kMaxNodeBytes));  // [nodes-list]
    if (!reader.ok()) break;
    if (hash::sha256(node) != digests[i]) {
      return fail(Errc::kCorrupt, "a directory node does not have the digest that names it");
    }
    add(digests[i], node);
  }
  return reader.finish("directory nodes");
}

Status NodeStore::fetch(const std::vector<hash::Sha256>& digests) {
  std::vector<uint32_t> requests;
  size_t sent = 0;
  size_t received = 0;
  size_t next_reply = 0;
  const uint64_t most = ZSTD_compressBound(opened_.nodes_bytes) + 64;
  while (received < digests.size()) {
    while (sent < digests.size() && requests.size() - next_reply < kRequestsAhead) {
      const size_t count = std::min(kNodesPerRequest, digests.size() - sent);
      const auto begin = digests.begin() + static_cast<ptrdiff_t>(sent);
      requests.push_back(conversation_.send_tree(
          {.all = false, .nodes = {begin, begin + static_cast<ptrdiff_t>(count)}}, most));
      sent += count;
    }
    const Result<Bytes> reply = conversation_.wait(requests[next_reply++]);
    if (!reply && reply.error().code == Errc::kNotFound) {
      return fail(Errc::kProtocol, "the server has no directory node of a digest that it names");
    }
    if (!reply) return std::unexpected(reply.error());
    const size_t count = std::min(kNodesPerRequest, digests.size() - received);
    if (const Status added = add_listed(digests, received, count, *reply); !added) return added;
    received += count;
  }
  return {};
}

Result<tree::Node> NodeStore::get(const hash::Sha256& digest) {
  if (find(digest).empty()) {
    if (const Status fetched = fetch({digest}); !fetched) return std::unexpected(fetched.error());
  }
  return tree::decode_node(find(digest));
}

Status NodeStore::fetch_below(const hash::Sha256& root) {
  if (state_ == nullptr && root == opened_.root) {
    if (const Status fetched = fetch_all(); !fetched) return fetched;
  }
  std::vector<hash::Sha256> here{root};
  std::unordered_set<hash::Sha256, DigestHash> seen{root};
  while (!here.empty()) {
    std::vector<hash::Sha256> missing;
    for (const hash::Sha256& digest : here) {
      if (find(digest).empty()) missing.push_back(digest);
    }
    if (const Status fetched = fetch(missing); !fetched) return fetched;
    std::vector<hash::Sha256> below;
    for (const hash::Sha256& digest : here) {
      const Result<tree::Node> node = tree::decode_node(find(digest));
      if (!node) return std::unexpected(node.error());
      tree::for_each_child(*node, [&](const hash::Sha256& child) {
        if (seen.insert(child).second) below.push_back(child);
      });
    }
    here.swap(below);
  }
  return {};
}

Result<tree::Table> NodeStore::expand(const Location& location, const RelPath& path,
                                      std::vector<tree::LeafCommitment>* leaves) const {
  tree::ExpandLimits limits{.entries = location.subtree_entries};
  if (leaves != nullptr) {
    limits.on_leaf = [leaves](const tree::LeafCommitment& leaf) { leaves->push_back(leaf); };
  }
  return tree::expand(
      location.node, location.metadata, [this](const hash::Sha256& digest) { return find(digest); },
      limits, path.text());
}

Result<catalog::NodePack> NodeStore::take_pack(const hash::Sha256& root) {
  std::vector<hash::Sha256> open{root};
  std::unordered_set<hash::Sha256, DigestHash> seen{root};
  while (!open.empty()) {
    const hash::Sha256 digest = open.back();
    open.pop_back();
    const ByteView bytes = find(digest);
    if (bytes.empty()) return fail(Errc::kNotFound, "directory node is missing");
    const Result<tree::Node> node = tree::decode_node(bytes);
    if (!node) return std::unexpected(node.error());
    tree::for_each_child(*node, [&](const hash::Sha256& child) {
      if (seen.insert(child).second) open.push_back(child);
    });
    if (!known_.contains(digest)) add(digest, bytes);
  }
  known_.clear();
  pack_.sort();
  return std::move(pack_);
}

Result<Location> NodeStore::locate(const RelPath& path) {
  Location here;
  here.node = opened_.root;
  here.subtree_entries = static_cast<uint32_t>(opened_.totals.entries);
  here.files = static_cast<uint32_t>(opened_.totals.files);
  here.size_bytes = opened_.totals.bytes;
  here.metadata = opened_.metadata;
  std::string_view rest = path.text();
  const auto missing = [&] {
    return fail(Errc::kNotFound, "'" + escape(path.text()) + "' is not in the module");
  };
  while (!rest.empty()) {
    const size_t slash = rest.find('/');
    const std::string_view name = rest.substr(0, slash);
    rest = slash == std::string_view::npos ? std::string_view() : rest.substr(slash + 1);
    if (here.kind != tree::Kind::kDirectory) return missing();
    uint32_t number = here.entry + 1;
    hash::Sha256 digest = here.node;
    bool found = false;
    for (size_t level = 0; level <= kMaxIndexLevels && !found; ++level) {
      const Result<tree::Node> node = get(digest);
      if (!node) return std::unexpected(node.error());
      if (const auto* index = std::get_if<tree::IndexNode>(&*node)) {
        size_t child = 0;
        while (child + 1 < index->children.size() &&
               index->children[child + 1].first_name <= name) {
          number += index->children[child++].entries;
        }
        digest = index->children[child].node;
        continue;
      }
      for (const tree::NodeEntry& entry : std::get<tree::LeafNode>(*node).entries) {
        if (entry.name != name) {
          number += 1 + entry.subtree_entries;
          continue;
        }
        here = {.entry = number,
                .kind = entry.kind,
                .node = entry.node,
                .subtree_entries = entry.subtree_entries,
                .files = entry.files,
                .size_bytes = entry.size_bytes,
                .target = std::string(entry.target),
                .metadata = {.mode = entry.mode,
                             .mtime_s = entry.mtime_s,
                             .mtime_ns = entry.mtime_ns,
                             .owner = std::string(entry.owner),
                             .group = std::string(entry.group)}};
        found = true;
        break;
      }
      if (!found) return missing();
    }
    if (!found) return fail(Errc::kProtocol, "directory nodes: too many index levels");
    // What may be expanded below was checked against the totals, not against what a node says.
    if (here.entry + uint64_t{here.subtree_entries} > opened_.totals.entries) {
      return fail(Errc::kProtocol, "directory nodes: more entries than the module has");
    }
  }
  return here;
}

}  // namespace superlifter::client
