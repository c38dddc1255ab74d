// ApplierBench: an applier with a destination, for tests of whole files and of patches.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "client/applier.h"
#include "client/staging.h"
#include "core/base/check.h"
#include "tests/support/target_tree.h"
#include "tests/support/temp_tree.h"

namespace superlifter::client {

// An applier with a destination. The files that it applies live in the target tree.
class ApplierBench {
 public:
  explicit ApplierBench(tests::TargetTree& tree, bool delete_extra = false) : tree_(tree) {
    umask(0);  // As the program does.
    start(delete_extra);
  }

  // The next run on the same destination.
  void restart(bool delete_extra = false) {
    applier.reset();
    staging.reset();
    start(delete_extra);
  }

  Applier::Job job(uint32_t entry) {
    Applier::Job out;
    out.entry = entry;
    out.digest = tree_.digest(entry);
    out.stage_name = staging->new_name(out.digest, tree_.view().record(entry).size_bytes);
    return out;
  }
  // A whole transfer of `content` in pieces of `step` bytes.
  void feed(Applier::Job what, std::string_view content, size_t step,
            wire::Code status = wire::Code::kOk) {
    const uint64_t offset = what.staged_bytes;
    const uint32_t number = applier->begin(std::move(what));
    size_t at = 0;
    do {
      const size_t part = std::min(step, content.size() - at);
      auto slab = std::make_shared<Slab>();
      slab->bytes.assign(content.begin() + static_cast<ptrdiff_t>(at),
                         content.begin() + static_cast<ptrdiff_t>(at + part));
      const ByteView bytes(slab->bytes);
      at += part;
      applier->write(number, std::move(slab), bytes, offset + at - part, at == content.size());
    } while (at < content.size());
    applier->decide(number, status);
  }
  std::vector<Applier::Outcome> outcomes(size_t count) {
    applier->flush();
    std::vector<Applier::Outcome> all;
    while (all.size() < count) {
      applier->commit_now();
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, std::chrono::milliseconds(20), [&] { return posted_; });
      posted_ = false;
      lock.unlock();
      for (Applier::Outcome& outcome : applier->take_outcomes()) {
        all.push_back(std::move(outcome));
      }
    }
    return all;
  }
  Applier::Outcome outcome() { return outcomes(1).front(); }
  bool stage_is_empty() const { return std::filesystem::is_empty(dest.path(".superlifter/stage")); }
  struct stat stat_of(std::string_view path) const {
    struct stat stat{};
    EXPECT_EQ(lstat(dest.path(path).c_str(), &stat), 0) << path;
    return stat;
  }

  tests::TempTree dest;
  std::unique_ptr<Staging> staging;
  std::unique_ptr<Applier> applier;

 private:
  void start(bool delete_extra) {
    Result<Staging> opened = Staging::open(dest.fd());
    CHECK(opened.has_value());
    staging = std::make_unique<Staging>(std::move(*opened));
    applier = std::make_unique<Applier>(ApplierOptions{.destination_fd = dest.fd(),
                                                       .table = tree_.view(),
                                                       .writers = 2,
                                                       .owner = false,
                                                       .delete_extra = delete_extra,
                                                       .on_outcome =
                                                           [this] {
                                                             const std::lock_guard lock(mutex_);
                                                             posted_ = true;
                                                             changed_.notify_one();
                                                           }},
                                        *staging);
  }

  tests::TargetTree& tree_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool posted_ = false;  // Guarded by mutex_.
};

// root: d/ (f), with that content.
struct OneFile {
  explicit OneFile(std::string_view content, uint16_t mode = 0640) {
    const uint32_t directory = tree.directory(tree::kRoot, "d");
    file = tree.file(directory, "f", content, mode);
    tree.finish();
  }
  tests::TargetTree tree;
  uint32_t file = 0;
};

}  // namespace superlifter::client
