// FakeStore: a session's store in memory: one module whose files are strings. Tests change a file's
// validators or content to play a tree that changes underneath, and the pack to play a broken one.
#pragma once

#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/base/limits.h"
#include "core/delta/signature.h"
#include "core/session/store.h"
#include "core/tree/node.h"
#include "core/tree/table.h"
#include "tests/support/kept_signature.h"

namespace superlifter::tests {

struct FakeFile {
  std::string content;
  Validators indexed;  // As the generation says.
  Validators now;      // As a stat says now.
  int open_errno = 0;
  int read_errno = 0;  // Once it is open.
};

class FakeGeneration final : public session::Generation {
 public:
  uint64_t generation_number = 1;
  bool kept = true;
  tree::Table table;
  hash::Sha256 root_digest;
  std::map<hash::Sha256, Bytes> nodes;
  std::vector<hash::Xxh128> xxh;
  std::map<uint32_t, FakeFile> files;
  mutable std::vector<uint32_t> reported_stale;
  unsigned kept_level = 0;
  Bytes pack;  // Kept signatures, one behind the other.
  std::shared_ptr<OpenFile> pack_file = std::make_shared<OpenFile>();
  int pack_errno = 0;
  std::map<uint32_t, Signature> signatures;

  uint64_t number() const override { return generation_number; }
  hash::Sha256 root() const override { return root_digest; }
  bool is_provisional() const override { return false; }
  bool has_owners() const override { return false; }
  tree::RootMetadata root_metadata() const override { return {}; }
  tree::Totals totals() const override { return table.view().totals(); }
  uint32_t node_count() const override { return static_cast<uint32_t>(nodes.size()); }
  uint64_t nodes_bytes() const override { return 0; }
  bool is_kept() const override { return kept; }
  ByteView node(const hash::Sha256& digest) const override {
    const auto found = nodes.find(digest);
    return found == nodes.end() ? ByteView() : ByteView(found->second);
  }
  FileRange all_nodes() const override { return {}; }
  ByteView xxh_digests(uint32_t first, uint32_t count) const override {
    return {xxh[first].bytes.data(), count * sizeof(hash::Xxh128)};
  }
  ByteView sha_digests(uint32_t, uint32_t) const override { return {}; }
  Result<File> file(uint32_t entry) const override {
    const auto found = files.find(entry);
    if (found == files.end()) return fail(Errc::kNotFound, "no file");
    File out;
    out.open.path = std::to_string(entry);
    out.validators = found->second.indexed;
    return out;
  }
  unsigned signature_level() const override { return kept_level; }
  std::optional<Signature> signature(uint32_t entry) const override {
    const auto found = signatures.find(entry);
    if (found == signatures.end()) return std::nullopt;
    return found->second;
  }
  void report_stale(uint32_t entry) const override { reported_stale.push_back(entry); }
};

class FakeStore final : public session::Store {
 public:
  std::shared_ptr<FakeGeneration> generation = std::make_shared<FakeGeneration>();
  Errc open_failure = Errc::kNotFound;  // For every module but "m".

  // A module "m" whose root holds the given files, named in order "f0000", "f0001", …
  void set_files(const std::vector<std::string>& contents) {
    FakeGeneration& made = *generation;
    tree::Record root;
    root.kind = tree::Kind::kDirectory;
    static_cast<void>(made.table.add(root, tree::kNoEntry, ""));
    made.xxh.emplace_back();
    for (const std::string& content : contents) {
      char name[24];
      std::snprintf(name, sizeof(name), "f%04zu", made.xxh.size() - 1);
      tree::Record record;
      record.size_bytes = content.size();
      const Result<uint32_t> entry = made.table.add(record, tree::kRoot, name);
      made.xxh.push_back(hash::xxh128(as_bytes(content)));
      FakeFile& file = made.files[*entry];
      file.content = content;
      file.indexed = {.inode = *entry,
                      .size_bytes = content.size(),
                      .mtime_s = 5,
                      .ctime_s = 6,
                      .mtime_ns = 7,
                      .ctime_ns = 8};
      file.now = file.indexed;
    }
    made.table.finish();
    made.root_digest = tree::encode_tree(made.table.view(), {.xxh = made.xxh, .sha = {}},
                                         [&](const hash::Sha256& digest, ByteView bytes) {
                                           made.nodes[digest] = Bytes(bytes.begin(), bytes.end());
                                         });
  }

  // Keeps signatures of all files that are long enough, from that level on.
  void keep_signatures(unsigned finest_level) {
    FakeGeneration& made = *generation;
    made.kept_level = finest_level;
    made.pack.assign(24, 0xEE);  // They need not begin at the front.
    for (const auto& [entry, file] : made.files) {
      if (file.content.size() < delta::kLeastSignedBytes) continue;
      const delta::SignatureLayout layout(file.content.size(), finest_level);
      const Bytes sums = kept_signature(file.content, layout);
      const size_t at = made.pack.size();
      made.pack.insert(made.pack.end(), sums.begin(), sums.end());
      made.signatures[entry] = {.file = made.pack_file, .offset = at, .layout = layout};
    }
  }

  std::vector<session::ModuleSummary> modules() override {
    return {{.name = "m", .comment = "a module", .generation = 1, .totals = generation->totals()}};
  }
  Result<std::shared_ptr<const session::Generation>> open(std::string_view module) override {
    if (module == "m") return generation;
    return fail(open_failure, "no such module");
  }

  // Answers a request as an engine would.
  FileReply run(const FileRequest& request) const {
    FileReply reply;
    reply.id = request.id;
    reply.is_regular = true;
    if (request.file == generation->pack_file) {
      reply.sys_errno = generation->pack_errno;
      if (reply.sys_errno == 0) read_ranges(request, as_text(generation->pack), reply.data);
      return reply;
    }
    const bool is_open = request.file != nullptr;
    const FakeFile& file =
        is_open ? *open_.at(request.file.get())
                : generation->files.at(static_cast<uint32_t>(std::stoul(request.open.path)));
    reply.sys_errno = is_open ? file.read_errno : file.open_errno;
    if (reply.sys_errno != 0) return reply;
    reply.validators = file.now;
    if (request.kind == FileRequest::Kind::kOpen) {
      reply.file = std::make_shared<OpenFile>();
      open_[reply.file.get()] = &file;
    } else if (request.kind != FileRequest::Kind::kRecheck) {
      read_ranges(request, file.content, reply.data);
    }
    return reply;
  }
  // Bytes of an open file's range, as a sender would send them.
  std::string read(const FileRange& range) const {
    return open_.at(range.file.get())->content.substr(range.offset, range.length_bytes);
  }

 private:
  static void read_ranges(const FileRequest& request, std::string_view content, Bytes& data) {
    size_t asked = 0;
    CHECK(request.ranges.size() <= kMaxRangesTogether);
    for (const FileRequest::Range& range : request.ranges) {
      asked += range.length_bytes;
      if (range.offset >= content.size()) continue;
      const std::string_view part = content.substr(range.offset, range.length_bytes);
      data.insert(data.end(), part.begin(), part.end());
    }
    CHECK(asked <= kSmallFileBytes);
  }

  mutable std::map<const OpenFile*, const FakeFile*> open_;
};

}  // namespace superlifter::tests
