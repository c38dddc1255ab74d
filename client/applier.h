// Applier: builds target files in staging and publishes them, on threads of its own.
//
//   network thread ──pieces──▶ writers (hash, write, check the digest, set mode and times)
//                                   └──finished──▶ committer (syncfs once a batch, then renames)
//
// Each file is one job. A job's pieces go to one writer, in order. A job ends in exactly one
// Outcome, which the network thread collects with take_outcomes(). What a writer finds wrong with
// content (a digest that does not match, a leftover or a local copy that is not what it should be)
// is kMismatch: the puller fetches the file (again).
//
//   job      begin ─▶ building ─▶ (last byte and status OK) ─▶ verified ─▶ synced ─▶ renamed
//                        └── stale, mismatch, error: staged bytes are removed (or kept for a
//                        resume)
//
// Memory: the queues hold slabs, whose number the conversation bounds, and one small event a piece.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "client/conversation.h"
#include "client/staging.h"
#include "core/base/result.h"
#include "core/base/unique_fd.h"
#include "core/catalog/catalog.h"
#include "core/hash/digest.h"
#include "core/tree/table.h"

namespace superlifter::client {

// Directories of DEST by entry number, opened beneath the destination and kept open for a while.
// For one thread.
class DirectoryCache {
 public:
  // Borrows both.
  DirectoryCache(int destination_fd, const tree::TableView& table)
      : destination_fd_(destination_fd), table_(table) {}
  // The fd of a directory entry, valid until the next call. kIo, kNotFound.
  [[nodiscard]] Result<int> get(uint32_t directory);
  // Forgets all fds: after directories were replaced.
  void clear() { open_.clear(); }

 private:
  int destination_fd_;
  const tree::TableView& table_;
  std::unordered_map<uint32_t, UniqueFd> open_;
};

// Names of users and groups to ids of this host, looked up once each.
class OwnerIds {
 public:
  // The id, or -1 ("leave it") for an empty or unknown name that is no number either.
  uint32_t user(std::string_view name);
  uint32_t group(std::string_view name);

 private:
  std::unordered_map<std::string, uint32_t> users_;
  std::unordered_map<std::string, uint32_t> groups_;
};

// Moves a staged entry to its place, atomically. What is in the way goes: a file or symlink always,
// an empty directory too, one with content only if `may_remove_directory` (else kIo says so).
[[nodiscard]] Status replace_from_stage(Staging& staging, const std::string& stage_name,
                                        int directory_fd, const std::string& name,
                                        bool may_remove_directory);

// What an entry's permission bits become here: setuid and setgid only with --owner.
uint16_t wanted_mode(const tree::Record& record, bool owner);

struct ApplierOptions {
  int destination_fd = -1;  // Borrowed.
  tree::TableView table;    // Borrowed.
  unsigned writers = 1;
  bool owner = false;
  bool delete_extra = false;         // Then a non-empty directory in a file's way may go.
  std::function<void()> on_outcome;  // Called from any thread when outcomes wait.
};

class Applier {
 public:
  // Where a job's bytes come from before the network: nothing, a leftover in staging, or a local
  // file.
  struct Job {
    uint32_t entry = 0;
    std::string stage_name;
    uint64_t staged_bytes = 0;  // Of a leftover; they are hashed before more is written.
    hash::Xxh128 digest;        // Expected; zero: not known, what comes is recorded.
    std::string copy_from;      // Path below DEST of a local file to copy; empty: none.
    bool check_only =
        false;  // The file in place may be right: hash it, then set mode and times only.
  };

  struct Outcome {
    enum class Kind { kApplied, kStale, kMismatch, kFailed };
    uint32_t entry = 0;
    Kind kind = Kind::kApplied;
    bool from_local = false;  // copy_from, check_only or a whole leftover: nothing was transferred.
    bool is_copy = false;     // copy_from.
    bool checked_only = false;
    hash::Xxh128 digest;       // kApplied: of the content.
    catalog::LocalStat local;  // kApplied: as it is in place now.
    Error error;               // kFailed; kStale: the code's message.
    bool is_fatal =
        false;  // kFailed: going on is pointless (a full disk, a read-only destination).
  };

  // Starts the threads. `staging` is borrowed.
  Applier(ApplierOptions options, Staging& staging);
  // Stops and joins; finished but unpublished files stay in staging for the next run.
  ~Applier();
  Applier(const Applier&) = delete;
  Applier& operator=(const Applier&) = delete;

  // Begins a job that the network feeds. Returns its number for the calls below.
  uint32_t begin(Job job);
  // Runs a job that needs no network: a copy, a check, or a whole leftover.
  void run_local(Job job);
  // The next bytes of a job. `ends`: its last; they may be empty.
  void write(uint32_t job, SlabRef slab, ByteView bytes, bool ends);
  // The server's word on a job: kOk once its bytes have all come, or why it failed.
  void decide(uint32_t job, wire::Code status);

  // Wakes the writers for what was queued since the last call: once a turn, not once a piece.
  void flush();
  // Publishes what is finished without waiting for a full batch.
  void commit_now();
  std::vector<Outcome> take_outcomes();

 private:
  struct Event;
  struct Building;
  struct Writer;

  void run_writer(Writer& writer);
  void handle(Writer& writer, Event& event);
  Status begin_building(Building& building);
  Status write_piece(Building& building, ByteView bytes, bool whole_file);
  void finish_if_complete(Writer& writer, uint32_t number);
  Status copy_local(Building& building);
  Status hash_range(int fd, uint64_t length_bytes, hash::Xxh128Hasher& hasher);
  void check_in_place(Writer& writer, Building& building);
  Status set_metadata(int fd, const tree::Record& record, OwnerIds& ids, bool mode_is_set) const;
  void end_job(Building& building, Outcome::Kind kind, Error error, bool keep_staged);
  void run_committer();
  void commit(Building& building, DirectoryCache& directories);
  Status put_in_place(const Building& building, DirectoryCache& directories,
                      catalog::LocalStat& local);
  void post(Outcome outcome);

  ApplierOptions options_;
  Staging& staging_;
  std::vector<std::unique_ptr<Writer>> writers_;
  uint32_t next_job_ = 0;
  std::atomic<bool> stop_ = false;

  std::mutex finished_mutex_;
  std::condition_variable finished_changed_;
  std::vector<Building> finished_;  // Guarded by finished_mutex_; verified, not yet in place.
  uint64_t finished_bytes_ = 0;     // Guarded by finished_mutex_.
  bool commit_now_ = false;         // Guarded by finished_mutex_.
  std::thread committer_;

  std::mutex outcomes_mutex_;
  std::vector<Outcome> outcomes_;  // Guarded by outcomes_mutex_.
};

}  // namespace superlifter::client
