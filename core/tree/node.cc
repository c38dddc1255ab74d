#include "core/tree/node.h"

#include <algorithm>
#include <optional>
#include <unordered_map>

#include "core/base/check.h"
#include "core/base/coding.h"
#include "core/base/limits.h"
#include "core/base/rel_path.h"

namespace superlifter::tree {
namespace {

// First byte of a node: [node-type].
constexpr uint8_t kLeafType = 0;
constexpr uint8_t kIndexType = 1;
constexpr uint8_t kHasOwners = 0x01;  // [leaf-flags]
constexpr uint8_t kKindMask = 0x03;   // [entry-head]
constexpr uint8_t kHardLink = 0x04;   // [entry-head]
constexpr uint16_t kModeMask = 07777;
constexpr uint32_t kNanosecondsPerSecond = 1'000'000'000;

template <class Digest>
Digest read_digest(Reader& reader) {
  Digest digest;
  const ByteView bytes = reader.bytes(digest.bytes.size());
  if (!bytes.empty()) std::copy(bytes.begin(), bytes.end(), digest.bytes.begin());
  return digest;
}

NodeEntry decode_entry(Reader& reader, bool has_owners) {
  NodeEntry entry;
  const uint8_t head = reader.u8();            // [entry-head]
  entry.mode = reader.u16();                   // [entry-mode]
  entry.mtime_s = reader.i64();                // [entry-mtime]
  entry.mtime_ns = reader.u32();               // [entry-mtime-ns]
  entry.name = reader.counted(kMaxNameBytes);  // [entry-name]
  if (has_owners) {
    entry.owner = reader.counted(kMaxOwnerNameBytes);  // [entry-owner]
    entry.group = reader.counted(kMaxOwnerNameBytes);  // [entry-group]
  }
  const bool hard_link = (head & kHardLink) != 0;
  const auto kind = static_cast<uint8_t>(head & kKindMask);
  if ((head & ~(kKindMask | kHardLink)) != 0 || kind > static_cast<uint8_t>(Kind::kSymlink) ||
      entry.mode > kModeMask || entry.mtime_ns >= kNanosecondsPerSecond ||
      (hard_link && kind != static_cast<uint8_t>(Kind::kFile))) {
    reader.invalidate();
    return entry;
  }
  entry.kind = static_cast<Kind>(kind);
  switch (entry.kind) {
    case Kind::kFile:
      entry.size_bytes = reader.varint();  // [entry-size]
      if (hard_link) {
        entry.link_path = reader.counted(kMaxPathBytes);  // [entry-link]
        if (entry.link_path.empty() || !RelPath::parse(entry.link_path)) reader.invalidate();
      }
      break;
    case Kind::kDirectory:
      entry.node = read_digest<hash::Sha256>(reader);  // [entry-node]
      entry.subtree_entries =
          static_cast<uint32_t>(reader.varint_at_most(kMaxEntries));  // [entry-entries]
      entry.files =
          static_cast<uint32_t>(reader.varint_at_most(entry.subtree_entries));  // [entry-files]
      entry.size_bytes = reader.varint();                                       // [entry-bytes]
      break;
    case Kind::kSymlink:
      entry.target = reader.counted(kMaxSymlinkBytes);  // [entry-target]
      entry.size_bytes = entry.target.size();
      if (entry.target.empty() || entry.target.find('\0') != std::string_view::npos) {
        reader.invalidate();
      }
      break;
  }
  if (!is_valid_name(entry.name)) reader.invalidate();
  return entry;
}

Result<Node> decode_leaf(Reader& reader) {
  LeafNode leaf;
  const uint8_t flags = reader.u8();  // [leaf-flags]
  if ((flags & ~kHasOwners) != 0) reader.invalidate();
  leaf.has_owners = (flags & kHasOwners) != 0;
  const uint64_t count = reader.varint_at_most(kMaxNodeChildren);  // [leaf-count]
  leaf.xxh_commitment = read_digest<hash::Xxh128>(reader);         // [leaf-xxh]
  leaf.sha_commitment = read_digest<hash::Sha256>(reader);         // [leaf-sha]
  for (uint64_t i = 0; i < count && reader.ok(); ++i) {
    NodeEntry entry = decode_entry(reader, leaf.has_owners);
    if (i > 0 && entry.name <= leaf.entries.back().name) reader.invalidate();
    leaf.entries.push_back(entry);
  }
  if (const Status end = reader.finish("directory node"); !end) return std::unexpected(end.error());
  return leaf;
}

Result<Node> decode_index(Reader& reader) {
  IndexNode index;
  index.level = reader.u8();  // [index-level]
  if (index.level == 0 || index.level > kMaxIndexLevels) reader.invalidate();
  const uint64_t count = reader.varint_at_most(kMaxNodeChildren);  // [index-count]
  if (count < 2) reader.invalidate();
  for (uint64_t i = 0; i < count && reader.ok(); ++i) {
    IndexChild child;
    child.node = read_digest<hash::Sha256>(reader);                             // [child-node]
    child.entries = static_cast<uint32_t>(reader.varint_at_most(kMaxEntries));  // [child-entries]
    child.first_name = reader.counted(kMaxNameBytes);                           // [child-name]
    const bool ordered = i == 0 || child.first_name > index.children.back().first_name;
    if (child.entries == 0 || !ordered || !is_valid_name(child.first_name)) reader.invalidate();
    index.children.push_back(child);
  }
  if (const Status end = reader.finish("index node"); !end) return std::unexpected(end.error());
  return index;
}

void encode_entry(const NodeEntry& entry, bool has_owners, Writer& writer) {
  auto head = static_cast<uint8_t>(entry.kind);
  if (!entry.link_path.empty()) head |= kHardLink;
  writer.u8(head);             // [entry-head]
  writer.u16(entry.mode);      // [entry-mode]
  writer.i64(entry.mtime_s);   // [entry-mtime]
  writer.u32(entry.mtime_ns);  // [entry-mtime-ns]
  writer.counted(entry.name);  // [entry-name]
  if (has_owners) {
    writer.counted(entry.owner);  // [entry-owner]
    writer.counted(entry.group);  // [entry-group]
  }
  switch (entry.kind) {
    case Kind::kFile:
      writer.varint(entry.size_bytes);                                // [entry-size]
      if (!entry.link_path.empty()) writer.counted(entry.link_path);  // [entry-link]
      break;
    case Kind::kDirectory:
      writer.bytes(entry.node.bytes);        // [entry-node]
      writer.varint(entry.subtree_entries);  // [entry-entries]
      writer.varint(entry.files);            // [entry-files]
      writer.varint(entry.size_bytes);       // [entry-bytes]
      break;
    case Kind::kSymlink:
      writer.counted(entry.target);  // [entry-target]
      break;
  }
}

// Whether a border falls after the child whose last (leaf: only) name is `name`, seen from `level`.
bool is_border(std::string_view name, unsigned level) {
  return ((hash::xxh64(as_bytes(name)) >> (7 * level)) & kNodeBorderMask) == 0;
}

// Encodes the nodes of one table; see encode_tree.
class TreeEncoder {
 public:
  TreeEncoder(const TableView& table, const FileDigests& digests, const NodeSink& sink)
      : table_(table), digests_(digests), sink_(sink) {
    CHECK(digests.xxh.size() == table.count());
    CHECK(digests.sha.empty() || digests.sha.size() == table.count());
  }

  // Children have higher numbers than their directory, so going down the numbers meets them first.
  // The digests of a directory's child directories are then the last ones pushed, the first child
  // on top.
  hash::Sha256 run() {
    for (uint32_t entry = table_.count(); entry-- > 0;) {
      if (table_.record(entry).is_directory()) done_.push_back(encode_directory(entry));
    }
    CHECK(done_.size() == 1);
    return done_.back();
  }

 private:
  // A finished node while the level above it is being built.
  struct Built {
    IndexChild child;
    std::string_view last_name;
  };

  hash::Sha256 encode_directory(uint32_t directory) {
    children_.clear();
    const uint32_t end = table_.end_of(directory);
    for (uint32_t child = directory + 1; child < end; child = table_.end_of(child)) {
      children_.push_back(child);
    }
    if (children_.size() <= kMaxNodeChildren) return emit_leaf(children_);
    std::vector<Built> level;
    cut(
        children_.size(), 0, [&](size_t i) { return table_.name(children_[i]); },
        [&](size_t first, size_t last) {
          const std::span<const uint32_t> part(&children_[first], last - first);
          Built built;
          built.child.node = emit_leaf(part);
          built.child.entries = table_.end_of(part.back()) - part.front();
          built.child.first_name = table_.name(part.front());
          built.last_name = table_.name(part.back());
          level.push_back(built);
        });
    for (unsigned height = 1; level.size() > 1; ++height) {
      CHECK(height <= kMaxIndexLevels);
      std::vector<Built> above;
      const auto emit = [&](size_t first, size_t last) {
        above.push_back(emit_index(std::span(&level[first], last - first), height));
      };
      if (level.size() <= kMaxNodeChildren) {
        emit(0, level.size());
      } else {
        cut(level.size(), height, [&](size_t i) { return level[i].last_name; }, emit);
      }
      level.swap(above);
    }
    return level.front().child.node;
  }

  // Cuts [0, count) into runs of 32 to 512 and hands out [first, last) of each. A last run of one
  // is joined to its neighbour, since an index node has at least two children.
  template <class NameAt, class Emit>
  static void cut(size_t count, unsigned level, NameAt name_at, Emit emit) {
    size_t first = 0;
    for (size_t i = 0; i < count; ++i) {
      const size_t size = i + 1 - first;
      const bool full = size == kMaxNodeChildren - 1;
      const bool border = size >= kMinNodeChildren && is_border(name_at(i), level);
      const bool leaves_one = count - (i + 1) == 1;
      if (i + 1 == count || ((full || border) && !leaves_one)) {
        emit(first, i + 1);
        first = i + 1;
      }
    }
  }

  hash::Sha256 emit_leaf(std::span<const uint32_t> children) {
    LeafNode leaf;
    leaf.has_owners = !table_.owner_names().empty();
    link_paths_.clear();
    link_paths_.reserve(children.size());
    xxh_section_.clear();
    sha_section_.clear();
    for (const uint32_t child : children) {
      const Record& record = table_.record(child);
      NodeEntry entry;
      entry.kind = record.kind;
      entry.mode = record.mode;
      entry.mtime_s = record.mtime_s;
      entry.mtime_ns = record.mtime_ns;
      entry.name = table_.name(child);
      entry.owner = table_.owner_name(record.owner);
      entry.group = table_.owner_name(record.group);
      entry.size_bytes = record.size_bytes;
      if (record.is_directory()) {
        entry.node = done_.back();
        done_.pop_back();
        entry.subtree_entries = record.subtree_entries;
        entry.files = record.link_or_files;
      } else if (record.is_symlink()) {
        entry.target = table_.target(child);
      } else {
        if (record.is_hard_link()) {
          entry.link_path = link_paths_.emplace_back(table_.path(record.link_or_files));
        }
        xxh_section_.push_back(digests_.xxh[child]);
        if (!digests_.sha.empty()) sha_section_.push_back(digests_.sha[child]);
      }
      leaf.entries.push_back(entry);
    }
    leaf.xxh_commitment = commit(std::span<const hash::Xxh128>(xxh_section_), hash::xxh128);
    leaf.sha_commitment = commit(std::span<const hash::Sha256>(sha_section_), hash::sha256);
    node_.clear();
    encode_leaf(leaf, node_);
    return emit_node();
  }

  Built emit_index(std::span<const Built> children, unsigned level) {
    IndexNode index;
    index.level = static_cast<uint8_t>(level);
    Built built;
    for (const Built& child : children) {
      index.children.push_back(child.child);
      built.child.entries += child.child.entries;
    }
    built.child.first_name = children.front().child.first_name;
    built.last_name = children.back().last_name;
    node_.clear();
    encode_index(index, node_);
    built.child.node = emit_node();
    return built;
  }

  hash::Sha256 emit_node() {
    const hash::Sha256 digest = hash::sha256(node_);
    sink_(digest, node_);
    return digest;
  }

  // The digest of digests that lie side by side; zero unless all of them are known.
  template <class Digest>
  static Digest commit(std::span<const Digest> section, Digest (*hash)(ByteView)) {
    const bool all_known = std::all_of(section.begin(), section.end(),
                                       [](const Digest& digest) { return digest.known(); });
    if (section.empty() || !all_known) return {};
    static_assert(sizeof(Digest) == sizeof(Digest::bytes));
    return hash({section.front().bytes.data(), section.size_bytes()});
  }

  const TableView& table_;
  const FileDigests& digests_;
  const NodeSink& sink_;
  std::vector<hash::Sha256> done_;  // Top nodes of directories whose parent is still to come.
  // Scratch, kept for its capacity.
  std::vector<uint32_t> children_;
  std::vector<std::string> link_paths_;
  std::vector<hash::Xxh128> xxh_section_;
  std::vector<hash::Sha256> sha_section_;
  Bytes node_;
};

// Walks a Merkle tree in preorder into a table, with a stack of its own; see expand.
class Expander {
 public:
  Expander(const NodeSource& source, const ExpandLimits& limits)
      : source_(source), limits_(limits) {}

  Result<Table> run(const hash::Sha256& root, const RootMetadata& metadata,
                    std::string_view base_path) {
    Record record;
    record.kind = Kind::kDirectory;
    record.mode = metadata.mode & kModeMask;
    record.mtime_s = metadata.mtime_s;
    record.mtime_ns = metadata.mtime_ns;
    if (const Status names = set_owners(record, metadata.owner, metadata.group); !names) {
      return std::unexpected(names.error());
    }
    const Result<uint32_t> added = table_.add(record, kNoEntry, {});
    if (!added) return std::unexpected(added.error());
    directories_.push_back({.entry = kRoot, .last_name = {}, .path_bytes = base_path.size()});
    if (const Status pushed = push(root, std::nullopt, true); !pushed) {
      return std::unexpected(pushed.error());
    }
    while (!frames_.empty()) {
      if (const Status stepped = step(); !stepped) return std::unexpected(stepped.error());
    }
    table_.finish();
    resolve_links(base_path);
    return std::move(table_);
  }

 private:
  struct Directory {
    uint32_t entry = 0;
    std::string_view last_name;  // Of the entries so far, to check the order across leaves.
    size_t path_bytes = 0;
  };
  struct Frame {
    Node node;
    size_t next = 0;
    std::optional<uint32_t> covers;  // Entries that the node above says are below this one.
    uint32_t first_entry = 0;
    bool ends_directory = false;  // A directory's top node.
  };
  struct Link {
    uint32_t entry;
    std::string_view path;
  };

  static std::unexpected<Error> broken(const char* what) {
    return fail(Errc::kProtocol, std::string("directory nodes: ") + what);
  }

  Status set_owners(Record& record, std::string_view owner, std::string_view group) {
    const Result<uint16_t> owner_index = table_.intern_owner(owner);
    if (!owner_index) return std::unexpected(owner_index.error());
    const Result<uint16_t> group_index = table_.intern_owner(group);
    if (!group_index) return std::unexpected(group_index.error());
    record.owner = *owner_index;
    record.group = *group_index;
    return {};
  }

  Status push(const hash::Sha256& digest, std::optional<uint32_t> covers, bool ends_directory) {
    const ByteView bytes = source_(digest);
    if (bytes.empty()) return fail(Errc::kNotFound, "directory node is missing");
    Result<Node> node = decode_node(bytes);
    if (!node) return std::unexpected(node.error());
    const LeafNode* leaf = std::get_if<LeafNode>(&*node);
    if (leaf != nullptr && !leaf->entries.empty() && limits_.on_leaf) {
      limits_.on_leaf({.first_entry = table_.count(),
                       .entries = static_cast<uint32_t>(leaf->entries.size()),
                       .xxh = leaf->xxh_commitment});
    }
    frames_.push_back({.node = std::move(*node),
                       .next = 0,
                       .covers = covers,
                       .first_entry = table_.count(),
                       .ends_directory = ends_directory});
    return {};
  }

  Status step() {
    Frame& frame = frames_.back();
    if (LeafNode* leaf = std::get_if<LeafNode>(&frame.node)) {
      if (frame.next < leaf->entries.size()) return add(leaf->entries[frame.next++]);
    } else {
      const IndexNode& index = std::get<IndexNode>(frame.node);
      if (frame.next < index.children.size()) return descend(index, index.children[frame.next++]);
    }
    const uint32_t entries = table_.count() - frame.first_entry;
    if (frame.covers && *frame.covers != entries) return broken("an entry count is wrong");
    if (frame.ends_directory) directories_.pop_back();
    frames_.pop_back();
    return {};
  }

  Status descend(const IndexNode& index, const IndexChild& child) {
    // push() moves frames_, so nothing of `index` or `child` is used after it.
    const uint8_t level = index.level;
    const std::string_view first_name = child.first_name;
    if (const Status pushed = push(child.node, child.entries, false); !pushed) return pushed;
    const Node& node = frames_.back().node;
    if (const IndexNode* below = std::get_if<IndexNode>(&node)) {
      if (below->level + 1 != level) return broken("an index level is wrong");
      if (below->children.front().first_name != first_name) return broken("a first name is wrong");
    } else {
      const LeafNode& leaf = std::get<LeafNode>(node);
      if (level != 1) return broken("an index level is wrong");
      if (leaf.entries.empty() || leaf.entries.front().name != first_name) {
        return broken("a first name is wrong");
      }
    }
    return {};
  }

  Status add(const NodeEntry& entry) {
    Directory& directory = directories_.back();
    if (!directory.last_name.empty() && entry.name <= directory.last_name) {
      return broken("names are not in order");
    }
    directory.last_name = entry.name;
    const size_t path_bytes =
        directory.path_bytes + (directory.path_bytes == 0 ? 0 : 1) + entry.name.size();
    if (path_bytes > kMaxPathBytes) return fail(Errc::kLimit, "a path is longer than 4,095 bytes");
    if (table_.count() > limits_.entries) {
      return fail(Errc::kLimit,
                  "tree has more than " + std::to_string(limits_.entries) + " entries");
    }
    Record record;
    record.kind = entry.kind;
    record.mode = entry.mode;
    record.mtime_s = entry.mtime_s;
    record.mtime_ns = entry.mtime_ns;
    record.size_bytes = entry.size_bytes;
    if (const Status names = set_owners(record, entry.owner, entry.group); !names) return names;
    const Result<uint32_t> added = table_.add(record, directory.entry, entry.name, entry.target);
    if (!added) return std::unexpected(added.error());
    if (!entry.link_path.empty()) links_.push_back({.entry = *added, .path = entry.link_path});
    if (entry.kind != Kind::kDirectory) return {};
    directories_.push_back({.entry = *added, .last_name = {}, .path_bytes = path_bytes});
    return push(entry.node, entry.subtree_entries, true);
  }

  // Finds the first entry of each hard-link group by one sweep over all paths.
  void resolve_links(std::string_view base_path) {
    if (links_.empty()) return;
    std::unordered_map<std::string_view, uint32_t> first;
    for (const Link& link : links_) {
      first.try_emplace(link.path, kNoEntry);
    }
    const TableView view = table_.view();
    std::string path(base_path);
    std::vector<size_t> ends{path.size()};  // Path length of each open directory.
    std::vector<uint32_t> open{kRoot};
    for (uint32_t entry = 1; entry < view.count(); ++entry) {
      while (view.record(entry).parent != open.back()) {
        open.pop_back();
        ends.pop_back();
      }
      path.resize(ends.back());
      if (!path.empty()) path += '/';
      path += view.name(entry);
      if (view.record(entry).is_directory()) {
        open.push_back(entry);
        ends.push_back(path.size());
      } else if (view.record(entry).is_file()) {
        const auto found = first.find(path);
        if (found != first.end()) found->second = entry;
      }
    }
    // A first path that is not here, or is itself a later name: the group's first entry here leads
    // it.
    for (const Link& link : links_) {
      uint32_t& leader = first.find(link.path)->second;
      const bool usable = leader < link.entry && !view.record(leader).is_hard_link();
      if (!usable) leader = link.entry;
      if (leader != link.entry) table_.record(link.entry).link_or_files = leader;
    }
    table_.finish();
  }

  const NodeSource& source_;
  const ExpandLimits& limits_;
  Table table_;
  std::vector<Frame> frames_;           // At most kMaxIndexLevels + 1 a directory.
  std::vector<Directory> directories_;  // Bounded by the path length.
  std::vector<Link> links_;
};

}  // namespace

Result<Node> decode_node(ByteView bytes) {
  if (bytes.size() > kMaxNodeBytes) return fail(Errc::kLimit, "directory node is too large");
  Reader reader(bytes);
  const uint8_t type = reader.u8();  // [node-type]
  if (reader.ok() && type == kLeafType) return decode_leaf(reader);
  if (reader.ok() && type == kIndexType) return decode_index(reader);
  reader.invalidate();
  return std::unexpected(reader.finish("directory node").error());
}

void encode_leaf(const LeafNode& leaf, Bytes& out) {
  CHECK(leaf.entries.size() <= kMaxNodeChildren);
  Writer writer(out);
  writer.u8(kLeafType);                         // [node-type]
  writer.u8(leaf.has_owners ? kHasOwners : 0);  // [leaf-flags]
  writer.varint(leaf.entries.size());           // [leaf-count]
  writer.bytes(leaf.xxh_commitment.bytes);      // [leaf-xxh]
  writer.bytes(leaf.sha_commitment.bytes);      // [leaf-sha]
  for (const NodeEntry& entry : leaf.entries) {
    encode_entry(entry, leaf.has_owners, writer);
  }
}

void encode_index(const IndexNode& index, Bytes& out) {
  CHECK(index.children.size() >= 2 && index.children.size() <= kMaxNodeChildren);
  Writer writer(out);
  writer.u8(kIndexType);                 // [node-type]
  writer.u8(index.level);                // [index-level]
  writer.varint(index.children.size());  // [index-count]
  for (const IndexChild& child : index.children) {
    writer.bytes(child.node.bytes);    // [child-node]
    writer.varint(child.entries);      // [child-entries]
    writer.counted(child.first_name);  // [child-name]
  }
}

hash::Sha256 encode_tree(const TableView& table, const FileDigests& digests, const NodeSink& sink) {
  return TreeEncoder(table, digests, sink).run();
}

Result<Table> expand(const hash::Sha256& root, const RootMetadata& metadata,
                     const NodeSource& source, const ExpandLimits& limits,
                     std::string_view base_path) {
  return Expander(source, limits).run(root, metadata, base_path);
}

bool keeps_commitment(const TableView& table, const LeafCommitment& leaf,
                      std::span<const hash::Xxh128> digests) {
  if (!leaf.xxh.known()) return true;
  Bytes section;
  uint32_t entry = leaf.first_entry;
  for (uint32_t i = 0; i < leaf.entries; ++i, entry = table.end_of(entry)) {
    const Record& record = table.record(entry);
    if (!record.is_file()) continue;
    const hash::Xxh128& digest = digests[record.is_hard_link() ? record.link_or_files : entry];
    section.insert(section.end(), digest.bytes.begin(), digest.bytes.end());
  }
  return hash::xxh128(section) == leaf.xxh;
}

void for_each_child(const Node& node, const std::function<void(const hash::Sha256&)>& visit) {
  if (const LeafNode* leaf = std::get_if<LeafNode>(&node)) {
    for (const NodeEntry& entry : leaf->entries) {
      if (entry.kind == Kind::kDirectory) visit(entry.node);
    }
    return;
  }
  for (const IndexChild& child : std::get<IndexNode>(node).children) {
    visit(child.node);
  }
}

}  // namespace superlifter::tree
