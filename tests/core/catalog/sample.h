// A small tree with everything in it, as the parts of a generation.
#pragma once

#include <string>
#include <vector>

#include "core/base/check.h"
#include "core/catalog/builder.h"
#include "core/catalog/format.h"
#include "core/delta/signature.h"
#include "core/hash/digest.h"
#include "core/tree/node.h"
#include "core/tree/table.h"

namespace superlifter::catalog {

struct Sample {
  tree::Table table;
  NodePack nodes;
  std::vector<hash::Xxh128> xxh;
  std::vector<hash::Sha256> sha;
  std::vector<LocalStat> local;
  std::vector<uint64_t> signatures;  // Of large_entry alone, the first in its pack.
  uint32_t large_entry = 0;
  hash::Sha256 root;

  explicit Sample(bool owners = true, std::string_view content = "content") {
    add(tree::Kind::kDirectory, tree::kNoEntry, "");
    const uint32_t bin = add(tree::Kind::kDirectory, tree::kRoot, "bin");
    const uint32_t first = add(tree::Kind::kFile, bin, "a\xff", {}, content);
    add(tree::Kind::kFile, bin, "b", {}, "another");
    const uint32_t link = add(tree::Kind::kFile, tree::kRoot, "c", {}, content);
    table.record(link).link_or_files = first;
    local[link] = local[first];
    add(tree::Kind::kSymlink, tree::kRoot, "link", "bin/b");
    large_entry = add(tree::Kind::kFile, tree::kRoot, "z", {}, std::string(5000, 'z'));
    signatures.resize(table.count(), 0);
    signatures[large_entry] = kPackHeaderBytes + kPackChecksumBytes;
    for (uint32_t entry = 0; owners && entry < table.count(); ++entry) {
      table.record(entry).owner = *table.intern_owner("root");
      table.record(entry).group = *table.intern_owner(entry % 2 == 0 ? "root" : "staff");
    }
    table.finish();
    root = tree::encode_tree(
        table.view(), {.xxh = xxh, .sha = sha},
        [this](const hash::Sha256& digest, ByteView bytes) { nodes.add(digest, bytes); });
    nodes.sort();
  }

  Parts parts() const {
    Parts out;
    out.header.generation = 17;
    out.header.created_ns = 1'234'567'890;
    out.header.root = root;
    out.header.base_path = "pool/main";
    out.header.source = "superlifter://host/module/pool/main";
    out.table = table.view();
    out.nodes = &nodes;
    out.xxh = xxh;
    out.sha = sha;
    out.local = local;
    out.header.pack = 3;
    out.header.signature_level = delta::kLeafLevel;
    out.header.signature_bytes =
        kPackChecksumBytes + delta::SignatureLayout(5000, delta::kLeafLevel).size_bytes();
    out.header.pack_bytes = kPackHeaderBytes + out.header.signature_bytes;
    out.signature_offsets = signatures;
    return out;
  }

 private:
  uint32_t add(tree::Kind kind, uint32_t parent, std::string_view name,
               std::string_view target = {}, std::string_view content = {}) {
    tree::Record record;
    record.kind = kind;
    record.mode = 0644;
    record.mtime_s = -5;
    record.mtime_ns = 999'999'999;
    record.size_bytes = content.size();
    const Result<uint32_t> entry = table.add(record, parent, name, target);
    CHECK(entry.has_value());
    const bool file = kind == tree::Kind::kFile;
    xxh.push_back(file ? hash::xxh128(as_bytes(content)) : hash::Xxh128());
    sha.push_back(file ? hash::sha256(as_bytes(content)) : hash::Sha256());
    LocalStat stat;
    stat.inode = 1000 + *entry;
    stat.ctime_s = 77;
    stat.ctime_ns = 88;
    stat.device = 3;
    local.push_back(stat);
    return *entry;
  }
};

}  // namespace superlifter::catalog
