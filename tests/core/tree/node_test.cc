#include "core/tree/node.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace superlifter::tree {
namespace {

// All nodes of a tree, by digest.
struct Encoded {
  hash::Sha256 root;
  std::map<hash::Sha256, Bytes> nodes;

  NodeSource source() const {
    return [this](const hash::Sha256& digest) {
      const auto found = nodes.find(digest);
      return found == nodes.end() ? ByteView() : ByteView(found->second);
    };
  }
};

Encoded encode(const TableView& table) {
  const std::vector<hash::Xxh128> xxh(table.count(), hash::xxh128(as_bytes("content")));
  Encoded out;
  out.root =
      encode_tree(table, {.xxh = xxh, .sha = {}}, [&](const hash::Sha256& digest, ByteView bytes) {
        out.nodes[digest] = Bytes(bytes.begin(), bytes.end());
      });
  return out;
}

Record record_of(Kind kind, uint64_t size_bytes = 0) {
  Record record;
  record.kind = kind;
  record.mode = kind == Kind::kDirectory ? 0755 : 0644;
  record.mtime_s = -5;
  record.mtime_ns = 999'999'999;
  record.size_bytes = size_bytes;
  return record;
}

void expect_same(const TableView& a, const TableView& b) {
  ASSERT_EQ(a.count(), b.count());
  for (uint32_t entry = 0; entry < a.count(); ++entry) {
    const Record& x = a.record(entry);
    const Record& y = b.record(entry);
    ASSERT_EQ(a.path(entry), b.path(entry));
    ASSERT_EQ(x.kind, y.kind) << a.path(entry);
    ASSERT_EQ(x.mode, y.mode) << a.path(entry);
    ASSERT_EQ(x.mtime_s, y.mtime_s) << a.path(entry);
    ASSERT_EQ(x.mtime_ns, y.mtime_ns) << a.path(entry);
    ASSERT_EQ(x.size_bytes, y.size_bytes) << a.path(entry);
    ASSERT_EQ(x.link_or_files, y.link_or_files) << a.path(entry);
    ASSERT_EQ(a.owner_name(x.owner), b.owner_name(y.owner));
    if (x.is_symlink()) {
      ASSERT_EQ(a.target(entry), b.target(entry));
    }
  }
}

RootMetadata root_metadata() {
  return {.mode = 0755, .mtime_s = -5, .mtime_ns = 999'999'999, .owner = {}, .group = {}};
}

// A random tree: directories, files, symlinks, hard links, names of odd bytes.
Table random_tree(uint32_t seed, uint32_t entries) {
  std::mt19937 random(seed);
  Table table;
  EXPECT_TRUE(table.add(record_of(Kind::kDirectory), kNoEntry, ""));
  struct Open {
    uint32_t directory;
    uint32_t next_name;
  };
  std::vector<Open> open{{0, 0}};
  std::vector<uint32_t> files;
  while (table.count() < entries) {
    if (open.size() > 1 && random() % 8 == 0) {
      open.pop_back();
      continue;
    }
    // Names ascend by construction: a counter in a fixed width, then a random byte.
    char digits[24];
    std::snprintf(digits, sizeof(digits), "%06u", open.back().next_name++);
    std::string name = digits;
    name += static_cast<char>(1 + random() % 46);
    const uint32_t parent = open.back().directory;
    switch (random() % 6) {
      case 0: {
        const auto added = table.add(record_of(Kind::kDirectory), parent, name);
        open.push_back({*added, 0});
        break;
      }
      case 1:
        EXPECT_TRUE(table.add(record_of(Kind::kSymlink), parent, name, "../t\xFF" + name));
        break;
      case 2:
        if (!files.empty()) {
          Record link = record_of(Kind::kFile);
          link.link_or_files = files[random() % files.size()];
          link.size_bytes = table.record(link.link_or_files).size_bytes;
          EXPECT_TRUE(table.add(link, parent, name));
          break;
        }
        [[fallthrough]];
      default:
        files.push_back(*table.add(record_of(Kind::kFile, random()), parent, name));
        break;
    }
  }
  table.finish();
  return table;
}

TEST(Node, ExpandsToTheTableItWasMadeFrom) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Table table = random_tree(seed, 3000);
    ASSERT_TRUE(table.view().validate()) << table.view().validate().error().message;
    const Encoded encoded = encode(table.view());
    const Result<Table> back =
        expand(encoded.root, root_metadata(), encoded.source(), {.entries = 3000});
    ASSERT_TRUE(back) << back.error().message;
    expect_same(table.view(), back->view());
    EXPECT_EQ(encode(back->view()).root, encoded.root);
  }
}

Table flat(const std::vector<std::string>& names) {
  Table table;
  EXPECT_TRUE(table.add(record_of(Kind::kDirectory), kNoEntry, ""));
  for (const std::string& name : names) {
    EXPECT_TRUE(table.add(record_of(Kind::kFile, 1), 0, name));
  }
  table.finish();
  return table;
}

std::vector<std::string> numbered(size_t count) {
  std::vector<std::string> names;
  for (size_t i = 0; i < count; ++i) {
    char name[24];
    std::snprintf(name, sizeof(name), "%08zu", i);
    names.emplace_back(name);
  }
  return names;
}

TEST(Node, DirectoriesAtTheBoundAreOneLeaf) {
  EXPECT_EQ(encode(flat(numbered(kMaxNodeChildren)).view()).nodes.size(), 1U);
  EXPECT_GT(encode(flat(numbered(kMaxNodeChildren + 1)).view()).nodes.size(), 2U);
  EXPECT_EQ(encode(flat({}).view()).nodes.size(), 1U);
}

TEST(Node, OneNewNameInALargeDirectoryChangesFewNodes) {
  std::vector<std::string> names = numbered(100'000);
  const Encoded before = encode(flat(names).view());
  names.insert(names.begin() + 50'000, names[49'999] + "x");
  const Table table = flat(names);
  const Encoded after = encode(table.view());
  size_t fresh = 0;
  size_t fresh_bytes = 0;
  for (const auto& [digest, bytes] : after.nodes) {
    if (before.nodes.contains(digest)) continue;
    ++fresh;
    fresh_bytes += bytes.size();
    EXPECT_LE(bytes.size(), kMaxNodeBytes);
  }
  EXPECT_LE(fresh, 6U);
  EXPECT_LE(fresh_bytes, 64U << 10);
  const Result<Table> back =
      expand(after.root, root_metadata(), after.source(), {.entries = 200'000});
  ASSERT_TRUE(back) << back.error().message;
  expect_same(table.view(), back->view());
}

TEST(Node, NamesWhoseHashesAllAreBordersStillShrinkEveryLevel) {
  // Names chosen so that a border could fall after each of them on level 0.
  std::vector<std::string> names;
  for (size_t i = 0; names.size() < 3000; ++i) {
    const std::string name = "n" + std::to_string(i);
    if ((hash::xxh64(as_bytes(name)) & kNodeBorderMask) == 0) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  const Encoded encoded = encode(flat(names).view());
  EXPECT_LE(encoded.nodes.size(), 3000 / kMinNodeChildren + 2);
}

TEST(Node, GroupsWhoseFirstPathIsOutsideAreLedFromInside) {
  Table table;
  ASSERT_TRUE(table.add(record_of(Kind::kDirectory), kNoEntry, ""));
  ASSERT_TRUE(table.add(record_of(Kind::kFile, 9), 0, "a"));
  ASSERT_TRUE(table.add(record_of(Kind::kDirectory), 0, "d"));
  Record link = record_of(Kind::kFile, 9);
  link.link_or_files = 1;
  ASSERT_TRUE(table.add(link, 2, "x"));
  ASSERT_TRUE(table.add(link, 2, "y"));
  table.finish();
  const Encoded encoded = encode(table.view());
  const Result<Node> root = decode_node(encoded.source()(encoded.root));
  ASSERT_TRUE(root);
  const hash::Sha256 below = std::get<LeafNode>(*root).entries[1].node;
  const Result<Table> part = expand(below, root_metadata(), encoded.source(), {.entries = 2}, "d");
  ASSERT_TRUE(part) << part.error().message;
  EXPECT_EQ(part->view().record(1).link_or_files, 0U);
  EXPECT_EQ(part->view().record(2).link_or_files, 1U);
  EXPECT_EQ(part->view().totals().bytes, 9U);
}

LeafNode one_file(std::string_view name) {
  LeafNode leaf;
  NodeEntry entry;
  entry.name = name;
  leaf.entries.push_back(entry);
  return leaf;
}

Encoded single(const LeafNode& leaf) {
  Encoded out;
  Bytes bytes;
  encode_leaf(leaf, bytes);
  out.root = hash::sha256(bytes);
  out.nodes[out.root] = bytes;
  return out;
}

TEST(Node, RefusesHostileNames) {
  for (const std::string& name :
       {std::string(""), std::string("."), std::string(".."), std::string("a/b"),
        std::string("a\0b", 3), std::string(256, 'x')}) {
    Bytes bytes;
    encode_leaf(one_file(name), bytes);
    EXPECT_FALSE(decode_node(bytes)) << name;
  }
  Bytes bytes;
  encode_leaf(one_file(std::string(255, 'x')), bytes);
  EXPECT_TRUE(decode_node(bytes));
}

TEST(Node, RefusesUnsortedAndRepeatedNames) {
  for (const char* second : {"a", "b"}) {
    LeafNode leaf = one_file("b");
    NodeEntry entry;
    entry.name = second;
    leaf.entries.push_back(entry);
    Bytes bytes;
    encode_leaf(leaf, bytes);
    EXPECT_FALSE(decode_node(bytes)) << second;
  }
}

TEST(Node, EveryTruncationIsRefused) {
  const Table table = random_tree(7, 200);
  for (const auto& [digest, bytes] : encode(table.view()).nodes) {
    for (size_t size = 0; size < bytes.size(); ++size) {
      ASSERT_FALSE(decode_node(ByteView(bytes).first(size)));
    }
    Bytes longer = bytes;
    longer.push_back(0);
    EXPECT_FALSE(decode_node(longer));
  }
}

TEST(Node, EveryFlippedByteIsRefusedOrExpandsWithinItsBounds) {
  const Table table = random_tree(11, 120);
  const Encoded encoded = encode(table.view());
  for (const auto& [digest, original] : encoded.nodes) {
    for (size_t at = 0; at < original.size(); ++at) {
      Encoded broken = encoded;
      broken.nodes[digest][at] ^= 0x41;
      const Result<Table> back =
          expand(broken.root, root_metadata(), broken.source(), {.entries = 120});
      if (back) {
        ASSERT_TRUE(back->view().validate()) << back->view().validate().error().message;
      }
    }
  }
}

// A node that holds two directories with one digest doubles at every level: 2^40 entries from 40
// nodes.
TEST(Node, SharedNodesAtEveryLevelStopAtTheLimit) {
  Encoded bomb = single(one_file("f"));
  uint32_t entries = 1;
  for (int level = 0; level < 40; ++level) {
    LeafNode leaf;
    for (const char* name : {"a", "b"}) {
      NodeEntry entry;
      entry.kind = Kind::kDirectory;
      entry.name = name;
      entry.node = bomb.root;
      entry.subtree_entries = entries;
      leaf.entries.push_back(entry);
    }
    entries = std::min<uint32_t>(2 * entries + 2, 4'000'000'000U);
    const Encoded next = single(leaf);
    bomb.nodes.insert(next.nodes.begin(), next.nodes.end());
    bomb.root = next.root;
  }
  const Result<Table> back = expand(bomb.root, root_metadata(), bomb.source(), {.entries = 10'000});
  ASSERT_FALSE(back);
  EXPECT_EQ(back.error().code, Errc::kLimit);
}

TEST(Node, RefusesCountsThatDoNotAddUp) {
  const Encoded file = single(one_file("f"));
  for (const uint32_t stated : {0U, 2U}) {
    LeafNode leaf;
    NodeEntry entry;
    entry.kind = Kind::kDirectory;
    entry.name = "d";
    entry.node = file.root;
    entry.subtree_entries = stated;
    leaf.entries.push_back(entry);
    Encoded tree = single(leaf);
    tree.nodes.insert(file.nodes.begin(), file.nodes.end());
    const Result<Table> back = expand(tree.root, root_metadata(), tree.source(), {.entries = 10});
    ASSERT_FALSE(back) << stated;
    EXPECT_EQ(back.error().code, Errc::kProtocol);
  }
}

TEST(Node, NamesTheMissingNode) {
  const Table table = random_tree(3, 100);
  Encoded encoded = encode(table.view());
  encoded.nodes.erase(std::find_if(encoded.nodes.begin(), encoded.nodes.end(),
                                   [&](const auto& item) { return item.first != encoded.root; }));
  const Result<Table> back =
      expand(encoded.root, root_metadata(), encoded.source(), {.entries = 100});
  ASSERT_FALSE(back);
  EXPECT_EQ(back.error().code, Errc::kNotFound);
}

TEST(Node, RefusesPathsBeyondTheLimit) {
  // Directories of 255-byte names, one in the other: 16 of them are 4,095 bytes, 17 are too long.
  Encoded tree = single({});
  uint32_t entries = 0;
  for (int level = 0; level < 17; ++level) {
    LeafNode leaf;
    NodeEntry entry;
    const std::string name(255, 'd');
    entry.kind = Kind::kDirectory;
    entry.name = name;
    entry.node = tree.root;
    entry.subtree_entries = entries++;
    leaf.entries.push_back(entry);
    const Encoded next = single(leaf);
    tree.nodes.insert(next.nodes.begin(), next.nodes.end());
    tree.root = next.root;
    const Result<Table> back = expand(tree.root, root_metadata(), tree.source(), {.entries = 100});
    EXPECT_EQ(back.has_value(), level < 16) << level;
  }
}

TEST(Node, CommitsToDigestsOnlyWhenAllAreKnown) {
  const Table table = flat({"a", "b"});
  const auto root_with = [&](const std::vector<hash::Xxh128>& xxh) {
    LeafNode leaf;
    static_cast<void>(encode_tree(table.view(), {.xxh = xxh, .sha = {}},
                                  [&](const hash::Sha256&, ByteView bytes) {
                                    leaf = std::get<LeafNode>(*decode_node(bytes));
                                  }));
    return leaf.xxh_commitment;
  };
  const hash::Xxh128 digest = hash::xxh128(as_bytes("x"));
  EXPECT_FALSE(root_with({{}, digest, {}}).known());
  Bytes both(digest.bytes.begin(), digest.bytes.end());
  both.insert(both.end(), digest.bytes.begin(), digest.bytes.end());
  EXPECT_EQ(root_with({{}, digest, digest}), hash::xxh128(both));
}

TEST(Node, LeavesTellWhetherDigestsAreTheOnesTheyCommitTo) {
  Table table;
  ASSERT_TRUE(table.add(record_of(Kind::kDirectory), kNoEntry, ""));
  ASSERT_TRUE(table.add(record_of(Kind::kFile, 9), 0, "a"));
  ASSERT_TRUE(table.add(record_of(Kind::kDirectory), 0, "d"));
  Record link = record_of(Kind::kFile, 9);
  link.link_or_files = 1;
  ASSERT_TRUE(table.add(link, 2, "x"));
  ASSERT_TRUE(table.add(record_of(Kind::kFile, 3), 0, "e"));
  table.finish();
  const hash::Xxh128 first = hash::xxh128(as_bytes("first"));
  const hash::Xxh128 last = hash::xxh128(as_bytes("last"));
  const std::vector<hash::Xxh128> digests = {{}, first, {}, first, last};
  Encoded encoded;
  encoded.root = encode_tree(table.view(), {.xxh = digests, .sha = {}},
                             [&](const hash::Sha256& digest, ByteView bytes) {
                               encoded.nodes[digest] = Bytes(bytes.begin(), bytes.end());
                             });
  std::vector<LeafCommitment> leaves;
  ExpandLimits limits{.entries = 10};
  limits.on_leaf = [&](const LeafCommitment& leaf) { leaves.push_back(leaf); };
  const Result<Table> back = expand(encoded.root, root_metadata(), encoded.source(), limits);
  ASSERT_TRUE(back) << back.error().message;
  ASSERT_EQ(leaves.size(), 2U);
  // A hard link's digest is its first entry's; its own place need not be filled.
  const std::vector<hash::Xxh128> known = {{}, first, {}, {}, last};
  const std::vector<hash::Xxh128> wrong = {{}, first, {}, {}, first};
  EXPECT_TRUE(keeps_commitment(back->view(), leaves[0], known));
  EXPECT_TRUE(keeps_commitment(back->view(), leaves[1], known));
  EXPECT_FALSE(keeps_commitment(back->view(), leaves[0], wrong));
  EXPECT_TRUE(keeps_commitment(back->view(), leaves[1], wrong));
}

}  // namespace
}  // namespace superlifter::tree
