// FakeStore: a session's store in memory: one module whose files are strings. Tests change a file's
// validators or content to play a tree that changes underneath.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/session/store.h"
#include "core/tree/node.h"
#include "core/tree/table.h"

namespace superlifter::tests {

struct FakeFile {
  std::string content;
  Validators indexed;  // As the generation says.
  Validators now;      // As a stat says now.
  int open_errno = 0;
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
    if (request.kind == FileRequest::Kind::kRecheck) {
      reply.is_regular = true;
      reply.validators = open_.at(request.file.get())->now;
      return reply;
    }
    const FakeFile& file =
        generation->files.at(static_cast<uint32_t>(std::stoul(request.open.path)));
    reply.sys_errno = file.open_errno;
    if (file.open_errno != 0) return reply;
    reply.is_regular = true;
    reply.validators = file.now;
    if (request.kind == FileRequest::Kind::kOpen) {
      reply.file = std::make_shared<OpenFile>();
      open_[reply.file.get()] = &file;
    } else if (request.offset < file.content.size()) {
      const std::string part = file.content.substr(request.offset, request.length_bytes);
      reply.data.assign(part.begin(), part.end());
    }
    return reply;
  }
  // Bytes of an open file's range, as a sender would send them.
  std::string read(const FileRange& range) const {
    return open_.at(range.file.get())->content.substr(range.offset, range.length_bytes);
  }

 private:
  mutable std::map<const OpenFile*, const FakeFile*> open_;
};

}  // namespace superlifter::tests
