// Whole pulls against the real session in this process, over a stream that is split, cut or
// corrupted at places that a seed chooses. Whatever happens, each file is the old one or the new
// one, and a pull that is left alone afterwards ends in the right tree.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "client/puller.h"
#include "core/base/coding.h"
#include "core/session/session.h"
#include "tests/support/kept_signature.h"
#include "tests/support/target_tree.h"
#include "tests/support/temp_tree.h"

namespace superlifter {
namespace {

using client::ExitCode;
using tests::TargetTree;
using tests::TempTree;
using tree::kRoot;

std::shared_ptr<OpenFile> in_memory(ByteView bytes) {
  auto file = std::make_shared<OpenFile>();
  file->fd = UniqueFd(memfd_create("content", MFD_CLOEXEC));
  CHECK(file->fd.valid());
  CHECK(write(file->fd.get(), bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  return file;
}

std::string pattern(size_t size_bytes, unsigned seed) {
  std::minstd_rand random(seed);
  std::string out(size_bytes, '\0');
  for (char& byte : out) {
    byte = static_cast<char>(random());
  }
  return out;
}

constexpr unsigned kSignatureLevel = 10;

// A target tree as a session serves it.
class SimGeneration final : public session::Generation {
 public:
  SimGeneration(uint64_t number, TargetTree& tree) : number_(number), tree_(tree) {
    tree.finish();
    Bytes plain;
    Writer writer(plain);
    root_ = tree::encode_tree(tree.view(), {.xxh = tree.xxh(), .sha = {}},
                              [&](const hash::Sha256& digest, ByteView bytes) {
                                if (!nodes_.try_emplace(digest, bytes.begin(), bytes.end()).second)
                                  return;
                                writer.varint(bytes.size());
                                writer.bytes(bytes);
                              });
    nodes_bytes_ = plain.size();
    Bytes packed(ZSTD_compressBound(plain.size()));
    packed.resize(ZSTD_compress(packed.data(), packed.size(), plain.data(), plain.size(), 3));
    all_ = {.file = in_memory(packed), .offset = 0, .length_bytes = packed.size()};
    Bytes pack;
    for (const auto& [entry, content] : tree.contents()) {
      files_[entry] = in_memory(as_bytes(content));
      if (content.size() < delta::kLeastSignedBytes) continue;
      const delta::SignatureLayout layout(content.size(), kSignatureLevel);
      signatures_[entry] = {.file = nullptr, .offset = pack.size(), .layout = layout};
      const Bytes sums = tests::kept_signature(content, layout);
      pack.insert(pack.end(), sums.begin(), sums.end());
    }
    pack_ = in_memory(pack);
    for (auto& [entry, signature] : signatures_)
      signature.file = pack_;
  }

  const TargetTree& tree() const { return tree_; }
  uint64_t number() const override { return number_; }
  hash::Sha256 root() const override { return root_; }
  bool is_provisional() const override { return false; }
  bool has_owners() const override { return false; }
  tree::RootMetadata root_metadata() const override {
    return {.mode = 0755, .mtime_s = 77, .mtime_ns = 7, .owner = {}, .group = {}};
  }
  tree::Totals totals() const override { return tree_.view().totals(); }
  uint32_t node_count() const override { return static_cast<uint32_t>(nodes_.size()); }
  uint64_t nodes_bytes() const override { return nodes_bytes_; }
  bool is_kept() const override { return kept; }
  ByteView node(const hash::Sha256& digest) const override {
    const auto found = nodes_.find(digest);
    return found == nodes_.end() ? ByteView() : ByteView(found->second);
  }
  FileRange all_nodes() const override { return all_; }
  ByteView xxh_digests(uint32_t first, uint32_t count) const override {
    return {tree_.xxh()[first].bytes.data(), count * sizeof(hash::Xxh128)};
  }
  ByteView sha_digests(uint32_t, uint32_t) const override { return {}; }
  Result<File> file(uint32_t entry) const override {
    if (!files_.contains(entry)) return fail(Errc::kNotFound, "no file");
    File out;
    out.open.path = std::to_string(entry);
    out.validators = validators(entry);
    return out;
  }
  unsigned signature_level() const override { return kSignatureLevel; }
  std::optional<Signature> signature(uint32_t entry) const override {
    const auto found = signatures_.find(entry);
    if (found == signatures_.end()) return std::nullopt;
    return found->second;
  }
  void report_stale(uint32_t) const override {}

  FileReply answer(const FileRequest& request) const {
    FileReply reply;
    reply.id = request.id;
    reply.is_regular = true;
    std::shared_ptr<OpenFile> from = request.file;
    if (from != nullptr) {
      for (const auto& [entry, file] : files_) {
        if (file == from) reply.validators = validators(entry);
      }
    } else {
      const auto entry = static_cast<uint32_t>(std::stoul(request.open.path));
      from = files_.at(entry);
      reply.validators = validators(entry);
    }
    if (request.kind == FileRequest::Kind::kOpen) reply.file = from;
    for (const FileRequest::Range& range : request.ranges) {
      const size_t at = reply.data.size();
      reply.data.resize(at + range.length_bytes);
      const ssize_t got = pread(from->fd.get(), reply.data.data() + at, range.length_bytes,
                                static_cast<off_t>(range.offset));
      reply.data.resize(at + static_cast<size_t>(std::max<ssize_t>(got, 0)));
    }
    return reply;
  }

  std::atomic<bool> kept = true;

 private:
  Validators validators(uint32_t entry) const {
    Validators out;
    out.inode = entry;
    out.size_bytes = tree_.content(entry).size();
    return out;
  }

  const uint64_t number_;
  const TargetTree& tree_;
  hash::Sha256 root_;
  std::map<hash::Sha256, Bytes> nodes_;
  uint64_t nodes_bytes_ = 0;
  FileRange all_;
  std::map<uint32_t, std::shared_ptr<OpenFile>> files_;
  std::shared_ptr<OpenFile> pack_;
  std::map<uint32_t, Signature> signatures_;
};

// What the stream does to the server's bytes.
struct Trouble {
  uint64_t cut_at = UINT64_MAX;   // The connection ends after so many bytes.
  uint64_t flip_at = UINT64_MAX;  // This byte arrives with a bit turned over.
  uint8_t flip_mask = 1;
  size_t most_at_once = SIZE_MAX;  // Bytes in one write.
};

// Serves one generation on a loopback port, a connection at a time.
class SimServer final : public session::Store {
 public:
  SimServer() {
    listener_ = UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
    CHECK(listen(listener_.get(), 8) == 0);
    socklen_t size = sizeof(address);
    CHECK(getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
    port = ntohs(address.sin_port);
    thread_ = std::thread([this] { run(); });
  }
  ~SimServer() override {
    stop_ = true;
    shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
  }

  // Between pulls.
  void serve(std::shared_ptr<SimGeneration> generation, Trouble trouble = {}) {
    const std::lock_guard lock(mutex_);
    generation_ = std::move(generation);
    trouble_ = trouble;
  }
  // During a pull: the next OPEN gets it, the one before is no longer kept.
  void replace_after(uint64_t sent_bytes, std::shared_ptr<SimGeneration> next) {
    const std::lock_guard lock(mutex_);
    replace_at_ = sent_bytes;
    next_ = std::move(next);
  }
  uint64_t sent_bytes() const { return sent_; }

  std::vector<session::ModuleSummary> modules() override { return {}; }
  Result<std::shared_ptr<const session::Generation>> open(std::string_view) override {
    const std::lock_guard lock(mutex_);
    return generation_;
  }

  uint16_t port = 0;

 private:
  void run() {
    while (!stop_) {
      const UniqueFd peer(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!peer.valid()) continue;
      Trouble trouble;
      {
        const std::lock_guard lock(mutex_);
        trouble = trouble_;
      }
      sent_ = 0;
      converse(peer.get(), trouble);
    }
  }

  void converse(int peer, const Trouble& trouble) {
    session::Session session(
        {.motd = "", .idle_timeout_ms = 60'000, .agent = "sim", .packer = &packer_}, *this);
    Outbox outbox;
    std::vector<uint8_t> buffer(64 << 10);
    while (!stop_) {
      session.advance(outbox);
      for (const FileRequest& request : session.take_file_requests()) {
        session.on_file(current_for(request)->answer(request));
      }
      session.advance(outbox);
      if (!outbox.empty()) {
        if (!send_all(peer, outbox, trouble)) return;
        continue;
      }
      if (session.has_ended()) return;
      pollfd waits{.fd = peer, .events = POLLIN, .revents = 0};
      if (poll(&waits, 1, 50) <= 0) continue;
      const ssize_t got = recv(peer, buffer.data(), buffer.size(), 0);
      if (got <= 0) return;
      session.feed(ByteView(buffer).first(static_cast<size_t>(got)));
    }
  }

  // Requests of a session are about the generation that it opened; all content here has one owner.
  std::shared_ptr<SimGeneration> current_for(const FileRequest&) {
    const std::lock_guard lock(mutex_);
    return generation_;
  }

  bool send_all(int peer, Outbox& outbox, const Trouble& trouble) {
    Bytes bytes;
    for (const OutItem& item : outbox.items()) {
      if (item.is_range()) {
        const size_t at = bytes.size();
        bytes.resize(at + item.range.length_bytes);
        CHECK(pread(item.range.file->fd.get(), bytes.data() + at, item.range.length_bytes,
                    static_cast<off_t>(item.range.offset)) ==
              static_cast<ssize_t>(item.range.length_bytes));
      } else {
        bytes.insert(bytes.end(), item.bytes.begin() + static_cast<ptrdiff_t>(item.sent),
                     item.bytes.end());
      }
    }
    outbox.consume(outbox.queued_bytes());
    size_t at = 0;
    while (at < bytes.size()) {
      if (sent_ == trouble.cut_at) return false;
      const uint64_t part =
          std::min<uint64_t>({bytes.size() - at, trouble.most_at_once, trouble.cut_at - sent_});
      const ByteView whole = ByteView(bytes).subspan(at, part);
      Bytes piece(whole.begin(), whole.end());
      if (trouble.flip_at >= sent_ && trouble.flip_at - sent_ < part) {
        piece[trouble.flip_at - sent_] ^= trouble.flip_mask;
      }
      const ssize_t wrote = send(peer, piece.data(), piece.size(), MSG_NOSIGNAL);
      if (wrote <= 0) return false;
      at += static_cast<size_t>(wrote);
      sent_ += static_cast<uint64_t>(wrote);
      const std::lock_guard lock(mutex_);
      if (next_ != nullptr && sent_ >= replace_at_) {
        generation_->kept = false;
        generation_ = std::exchange(next_, nullptr);
      }
    }
    return true;
  }

  UniqueFd listener_;
  session::Packer packer_;
  std::thread thread_;
  std::atomic<bool> stop_ = false;
  std::atomic<uint64_t> sent_ = 0;
  std::mutex mutex_;  // Guards what follows.
  std::shared_ptr<SimGeneration> generation_;
  std::shared_ptr<SimGeneration> next_;
  uint64_t replace_at_ = 0;
  Trouble trouble_;
};

// Two states of one module: what changes, comes, goes, moves, and turns from a directory into a
// file.
struct Module {
  Module() {
    uint32_t d = old.directory(kRoot, "d");
    old.file(d, "changed", pattern(5'000, 1));
    old.file(d, "large", pattern(300'000, 2));
    old.file(d, "moved", pattern(70'000, 3));
    old.file(d, "same", pattern(2'000, 4), 0444);
    old.file(old.directory(kRoot, "e"), "inside", "a directory that becomes a file");
    old.file(kRoot, "gone", "x");
    d = now.directory(kRoot, "d");
    now.file(d, "changed", pattern(5'000, 10));
    now.file(d, "empty", "");
    now.file(d, "large", pattern(400'000, 11), 0400);
    now.file(d, "same", pattern(2'000, 4), 0444);
    now.file(kRoot, "e", "a file");
    const uint32_t f = now.directory(kRoot, "f", 0555);
    const uint32_t leader = now.file(f, "leader", pattern(90'000, 12));
    now.symlink(f, "link", "../d/large");
    now.file(f, "moved-here", pattern(70'000, 3));
    now.hard_link(f, "twin", leader);
    for (int i = 0; i < 50; ++i) {
      char name[16];
      std::snprintf(name, sizeof(name), "s%03d", i);
      now.file(kRoot, name, pattern(static_cast<size_t>(i) * 40, 100U + static_cast<unsigned>(i)));
    }
    first = std::make_shared<SimGeneration>(1, old);
    second = std::make_shared<SimGeneration>(2, now);
  }
  TargetTree old;
  TargetTree now;
  std::shared_ptr<SimGeneration> first;
  std::shared_ptr<SimGeneration> second;
};

struct Outcome {
  client::PullResult result;
  std::string notes;
};

Outcome pull(const SimServer& server, const std::string& dest, uint64_t timeout_ms = 60'000,
             const std::function<void(client::PullOptions&)>& change = {},
             const std::atomic<bool>* stop = nullptr) {
  umask(0);  // As the program does.
  client::PullOptions options;
  options.source = *client::parse_source("127.0.0.1:" + std::to_string(server.port) + "/m");
  options.destination = dest;
  options.delete_extra = true;
  options.network.timeout_ms = timeout_ms;
  if (change) change(options);
  Outcome outcome;
  SystemClock clock;
  client::Progress progress(
      clock, client::make_quiet_renderer([&](std::string_view text) { outcome.notes += text; }));
  const std::atomic<bool> never = false;
  outcome.result = client::pull(options, progress, clock, stop != nullptr ? *stop : never);
  return outcome;
}

std::string content_of(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  CHECK(fd.valid());
  std::string out(1 << 20, '\0');
  size_t size = 0;
  ssize_t got = 0;
  while ((got = read(fd.get(), out.data() + size, out.size() - size)) > 0) {
    size += static_cast<size_t>(got);
  }
  out.resize(size);
  return out;
}

// Every file in DEST is whole: as one of the two trees has it at that path.
void expect_no_torn_file(const std::string& dest, const Module& module) {
  if (!std::filesystem::exists(dest)) return;
  for (auto item = std::filesystem::recursive_directory_iterator(dest);
       item != std::filesystem::recursive_directory_iterator(); ++item) {
    if (item->path().filename() == ".superlifter") item.disable_recursion_pending();
    if (!item->is_regular_file() || item->is_symlink()) continue;
    const std::string path = std::filesystem::relative(item->path(), dest);
    const std::string found = content_of(item->path());
    bool known = false;
    for (const TargetTree* tree : {&module.old, &module.now}) {
      const uint32_t entry = tree->view().find(path);
      known = known || (entry != tree::kNoEntry && tree->contents().contains(entry) &&
                        tree->content(entry) == found);
    }
    EXPECT_TRUE(known) << path << " is torn: " << found.size() << " bytes";
  }
}

void expect_tree(const std::string& dest, const TargetTree& tree) {
  size_t count = 0;
  for (auto item = std::filesystem::recursive_directory_iterator(dest);
       item != std::filesystem::recursive_directory_iterator(); ++item) {
    if (item->path().filename() == ".superlifter") {
      item.disable_recursion_pending();
    } else {
      ++count;
    }
  }
  EXPECT_EQ(count, tree.view().count() - 1);
  for (uint32_t entry = 1; entry < tree.view().count(); ++entry) {
    const tree::Record& record = tree.view().record(entry);
    const std::string path = dest + "/" + tree.view().path(entry);
    struct stat stat{};
    ASSERT_EQ(lstat(path.c_str(), &stat), 0) << path;
    EXPECT_EQ(stat.st_mtim.tv_sec, record.mtime_s) << path;
    EXPECT_EQ(stat.st_mtim.tv_nsec, record.mtime_ns) << path;
    if (!record.is_symlink()) {
      EXPECT_EQ(stat.st_mode & 07777U, record.mode) << path;
    }
    if (record.is_file()) {
      EXPECT_EQ(content_of(path), tree.content(entry)) << path;
    }
    if (record.is_symlink()) {
      EXPECT_EQ(std::filesystem::read_symlink(path), std::string(tree.view().target(entry)));
    }
    if (record.is_hard_link()) {
      struct stat first{};
      ASSERT_EQ(lstat((dest + "/" + tree.view().path(record.link_or_files)).c_str(), &first), 0);
      EXPECT_EQ(first.st_ino, stat.st_ino) << path;
    }
  }
  struct stat root{};
  ASSERT_EQ(lstat(dest.c_str(), &root), 0);
  EXPECT_EQ(root.st_mode & 07777U, 0755U);
  EXPECT_EQ(root.st_mtim.tv_sec, 77);
}

void expect_ok(const Outcome& outcome) {
  EXPECT_EQ(outcome.result.exit_code, ExitCode::kOk) << outcome.notes;
}

TEST(PullSim, UpdateEndsInTheNewTreeAndTheNextMovesNothing) {
  const Module module;
  TempTree place;
  SimServer server;
  const std::string dest = place.path("dest");
  server.serve(module.first);
  expect_ok(pull(server, dest));
  server.serve(module.second);
  Outcome outcome = pull(server, dest);
  expect_ok(outcome);
  expect_tree(dest, module.now);
  EXPECT_EQ(outcome.result.stats.files_moved, 1U);
  EXPECT_EQ(outcome.result.stats.bytes_matched, 70'000U);
  EXPECT_EQ(outcome.result.stats.files_deleted, 2U);
  outcome = pull(server, dest);
  expect_ok(outcome);
  EXPECT_EQ(outcome.result.stats.bytes_literal, 0U);
  EXPECT_LT(outcome.result.stats.bytes_received, 500U);
  expect_tree(dest, module.now);
}

TEST(PullSim, ChangeThatSizeAndTimeDoNotShowIsFetched) {
  // In a directory and in one beneath it, with siblings before and behind.
  TargetTree old;
  TargetTree now;
  for (TargetTree* tree : {&old, &now}) {
    const bool is_new = tree == &now;
    tree->file(kRoot, "a", is_new ? "1" : "0");
    const uint32_t d = tree->directory(kRoot, "d");
    tree->file(d, "b", is_new ? "1" : "0");
    tree->file(tree->directory(d, "e"), "c", is_new ? "1" : "0");
    tree->file(d, "same", "same");
    tree->file(kRoot, "z", is_new ? "1" : "0");
  }
  TempTree place;
  SimServer server;
  server.serve(std::make_shared<SimGeneration>(1, old));
  expect_ok(pull(server, place.path("dest")));
  server.serve(std::make_shared<SimGeneration>(2, now));
  const Outcome outcome = pull(server, place.path("dest"));
  expect_ok(outcome);
  EXPECT_EQ(outcome.result.stats.files_fetched, 4U);
  expect_tree(place.path("dest"), now);
}

TEST(PullSim, AnySplitOfTheStreamGivesTheSame) {
  const Module module;
  for (const size_t most_at_once : {1U, 11U, 12U, 13U, 1000U, 65'537U}) {
    // A byte at a time would take long for the large ones.
    TempTree place;
    SimServer server;
    server.serve(most_at_once == 1 ? module.first : module.second, {.most_at_once = most_at_once});
    expect_ok(pull(server, place.path("dest")));
    expect_tree(place.path("dest"), most_at_once == 1 ? module.old : module.now);
  }
}

// What a whole update sends.
uint64_t bytes_of_an_update(const Module& module) {
  TempTree place;
  SimServer server;
  server.serve(module.first);
  expect_ok(pull(server, place.path("dest")));
  server.serve(module.second);
  expect_ok(pull(server, place.path("dest")));
  return server.sent_bytes();
}

TEST(PullSim, CutAnywhereLeavesWholeFilesAndTheNextPullsFinish) {
  const Module module;
  const uint64_t whole = bytes_of_an_update(module);
  for (unsigned seed = 1; seed <= 15; ++seed) {
    SCOPED_TRACE(seed);
    std::minstd_rand random(seed);
    TempTree place;
    SimServer server;
    const std::string dest = place.path("dest");
    server.serve(module.first);
    expect_ok(pull(server, dest));
    uint64_t received = 0;
    for (int cut = 0; cut < 4; ++cut) {
      server.serve(module.second,
                   {.cut_at = random() % whole, .most_at_once = 1 + random() % 5'000});
      const Outcome outcome = pull(server, dest);
      received += outcome.result.stats.bytes_literal;
      // What is left may need less than the cut allows.
      if (outcome.result.exit_code != ExitCode::kOk) {
        EXPECT_TRUE(outcome.result.exit_code == ExitCode::kStream ||
                    outcome.result.exit_code == ExitCode::kSocketIo)
            << static_cast<int>(outcome.result.exit_code);
        EXPECT_NE(outcome.notes.find("127.0.0.1"), std::string::npos) << outcome.notes;
      }
      expect_no_torn_file(dest, module);
    }
    server.serve(module.second);
    const Outcome outcome = pull(server, dest);
    expect_ok(outcome);
    received += outcome.result.stats.bytes_literal;
    expect_tree(dest, module.now);
    EXPECT_TRUE(std::filesystem::exists(dest + "/.superlifter/state.generation"));
    EXPECT_FALSE(std::filesystem::exists(dest + "/.superlifter/stage"));
    // Each cut costs at most what was on its way; a large file is continued.
    EXPECT_LT(received, 5 * whole);
  }
}

TEST(PullSim, TurnedBitIsNoticedAndTearsNothing) {
  const Module module;
  const uint64_t whole = bytes_of_an_update(module);
  for (unsigned seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    std::minstd_rand random(seed);
    TempTree place;
    SimServer server;
    const std::string dest = place.path("dest");
    server.serve(module.first);
    expect_ok(pull(server, dest));
    // Half of them in the part before the content.
    const uint64_t range = seed % 2 == 0 ? std::min<uint64_t>(whole, 6'000) : whole;
    server.serve(module.second, {.flip_at = random() % range,
                                 .flip_mask = static_cast<uint8_t>(1U << (random() % 8)),
                                 .most_at_once = 1 + random() % 50'000});
    const Outcome outcome = pull(server, dest, 500);
    expect_no_torn_file(dest, module);
    if (outcome.result.exit_code != ExitCode::kOk) {
      EXPECT_FALSE(outcome.notes.empty());
    }
    server.serve(module.second);
    expect_ok(pull(server, dest));
    expect_tree(dest, module.now);
  }
}

TEST(PullSim, GenerationThatGoesAwayIsFollowedByItsSuccessor) {
  const Module module;
  const uint64_t whole = bytes_of_an_update(module);
  TempTree place;
  for (const uint64_t at : {uint64_t{100}, uint64_t{2'000}, whole / 2}) {
    SCOPED_TRACE(at);
    SimServer server;
    Module again;  // Its generations are still kept.
    const std::string dest = place.path("dest" + std::to_string(at));
    server.serve(again.first, {.most_at_once = 1000});
    server.replace_after(at, again.second);
    const Outcome outcome = pull(server, dest);
    expect_no_torn_file(dest, module);
    if (outcome.result.exit_code == ExitCode::kOk && outcome.result.stats.generation == 2) {
      expect_tree(dest, module.now);
    } else if (outcome.result.exit_code == ExitCode::kOk) {
      expect_tree(dest, module.old);  // It was all on its way already.
    } else {
      EXPECT_FALSE(outcome.notes.empty());
    }
    server.serve(module.second);
    expect_ok(pull(server, dest));
    expect_tree(dest, module.now);
  }
}

TEST(PullSim, DryRunOfAMissingDestinationLeavesNoTrace) {
  const Module module;
  TempTree place;
  SimServer server;
  server.serve(module.second);
  testing::internal::CaptureStdout();
  const Outcome outcome = pull(server, place.path("dest"), 60'000,
                               [](client::PullOptions& options) { options.dry_run = true; });
  const std::string plan = testing::internal::GetCapturedStdout();
  expect_ok(outcome);
  EXPECT_NE(plan.find("fetch     d/changed\n"), std::string::npos) << plan;
  EXPECT_NE(plan.find("mkdir     f/\n"), std::string::npos) << plan;
  EXPECT_TRUE(std::filesystem::is_empty(place.path()));
}

TEST(PullSim, DryRunOfAnUpdateChangesNothing) {
  const Module module;
  TempTree place;
  SimServer server;
  server.serve(module.first);
  expect_ok(pull(server, place.path("dest")));
  server.serve(module.second);
  testing::internal::CaptureStdout();
  const Outcome outcome = pull(server, place.path("dest"), 60'000,
                               [](client::PullOptions& options) { options.dry_run = true; });
  const std::string plan = testing::internal::GetCapturedStdout();
  expect_ok(outcome);
  EXPECT_NE(plan.find("delete    gone\n"), std::string::npos) << plan;
  expect_tree(place.path("dest"), module.old);
}

TEST(PullSim, SingleFileLeavesNothingBeside) {
  const Module module;
  TempTree place;
  SimServer server;
  server.serve(module.second);
  for (const char* path : {"d/large", "f/twin", "d/empty"}) {
    place.make_directory("into");
    expect_ok(pull(server, place.path("into"), 60'000, [&](client::PullOptions& options) {
      options.source.path = *RelPath::parse(path);
    }));
    const std::string name = std::filesystem::path(path).filename();
    EXPECT_EQ(content_of(place.path("into/" + name)),
              module.now.content(module.now.view().find(path)));
    std::filesystem::remove(place.path("into/" + name));
    EXPECT_TRUE(std::filesystem::is_empty(place.path("into")));
  }
}

TEST(PullSim, StoppedPullEndsAsInterruptedAndCanBeResumed) {
  const Module module;
  TempTree place;
  SimServer server;
  const std::string dest = place.path("dest");
  server.serve(module.second, {.most_at_once = 100});
  std::atomic<bool> stop = false;
  std::thread stopper([&] {
    while (server.sent_bytes() < 300'000) {
      std::this_thread::yield();
    }
    stop = true;
  });
  const Outcome outcome = pull(server, dest, 60'000, {}, &stop);
  stopper.join();
  EXPECT_EQ(outcome.result.exit_code, ExitCode::kInterrupted);
  expect_no_torn_file(dest, module);
  server.serve(module.second);
  expect_ok(pull(server, dest));
  expect_tree(dest, module.now);
}

}  // namespace
}  // namespace superlifter
