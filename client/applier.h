// Applier: builds target files in staging and publishes them, on threads of its own.
//
//   network thread ──pieces──▶ writers (hash, write, check the digest, set mode and times)
//                               │  ▲ └──finished──▶ committer (syncfs once a batch, then renames)
//                  large patches▼  │done
//                              copiers (copy from the basis, read again and hash)
//
// Each file is one job. A job's pieces go to one writer, in order. A job ends in exactly one
// Outcome, which the network thread collects with take_outcomes(). What a writer finds wrong with
// content (a digest that does not match, a basis, a leftover or a local copy that is not what it
// should be) is kMismatch: the puller fetches the file whole (again).
//
//   job      begin ─▶ building ─▶ (last byte and status OK) ─▶ verified ─▶ synced ─▶ renamed
//                        └── stale, mismatch, error: staged bytes are removed (or kept for a
//                        resume)
//
// A patch (a job with a plan) is built in a new staged file: literals are written where they belong
// as they come, the other bytes are copied from the basis, and when all is there the file is read
// once from front to back: its digest decides. Small patches are copied when their literals are
// there; for large ones copiers begin at once, so that the writers, and with them the network, are
// not held up. How fast copies are: file_copy.h.
//
// In place (--inplace) the file in DEST itself becomes the target. Literals of a patch are staged
// until all are there; until then the file is not touched. Then its time is set to the epoch, for
// good (fsync), the copies are carried out, the literals are written, the file is cut to its length
// and checked. Room is needed for the literals, and for what must be saved (delta/in_place.h).
// Whatever interrupts that (a kill, a power cut) leaves a file that is neither old nor new, but has
// neither time: the next pull takes it as a basis and repairs it. A whole file is written over the
// old one as it comes, marked in the same way. What cannot be changed in place (it is missing, no
// regular file, or has other names: st_nlink > 1) is built in staging like any other.
//
// Memory: the queues hold slabs, whose number the conversation bounds, and one small event a piece.
// Fds: of patches whose copies began ahead of their literals, at most kMaxEarly are open.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "client/conversation.h"
#include "client/file_copy.h"
#include "client/placement.h"
#include "client/rebuild.h"
#include "client/staging.h"
#include "core/base/result.h"
#include "core/base/unique_fd.h"
#include "core/catalog/catalog.h"
#include "core/delta/in_place.h"
#include "core/delta/plan.h"
#include "core/hash/digest.h"
#include "core/tree/table.h"

namespace superlifter::client {

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
    // The file in place may be right: hash it, then set mode and times only.
    bool check_only = false;
    // A patch: how the file is rebuilt from `basis`, a path below DEST. Its digest is known,
    // staged_bytes is 0 and stage_name is one that no later run takes for the front of a file
    // (Staging::new_patch_name). Null: the whole content comes.
    std::shared_ptr<const delta::Plan> plan;
    std::string basis;
    // Change the file in place, if that can be done. A patch needs delta::order_in_place(): its
    // plan here and in `plan`, and `basis` is the file's own path.
    bool in_place = false;
    std::shared_ptr<const delta::InPlacePlan> in_place_plan;
  };

  struct Outcome {
    enum class Kind { kApplied, kStale, kMismatch, kFailed };
    uint32_t entry = 0;
    Kind kind = Kind::kApplied;
    bool from_local = false;  // By run_local(): nothing was transferred.
    bool is_copy = false;     // copy_from.
    bool checked_only = false;
    bool is_patch = false;      // It had a plan, whatever became of it.
    uint64_t copied_bytes = 0;  // kApplied, of a patch: how much of it came from the basis.
    hash::Xxh128 digest;        // kApplied: of the content.
    catalog::LocalStat local;   // kApplied: as it is in place now.
    Error error;                // kFailed; kStale: the code's message.
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
  // Runs a job that needs no network: a copy, a check, a whole leftover, a patch without literals.
  void run_local(Job job);
  // The next bytes of a job, which stand at `offset` in the file: for a whole file, where the last
  // ones ended; for a patch, in a literal of its plan, none twice. `ends`: the job's last; they may
  // be empty.
  void write(uint32_t job, SlabRef slab, ByteView bytes, uint64_t offset, bool ends);
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
  struct Patch;
  struct Writer;

  void send(uint32_t job, Event event);

  // Writer threads.
  void run_writer(Writer& writer);
  void handle(Writer& writer, Event& event);
  void begin_job(Writer& writer, Event& event);
  void begin_local(Writer& writer, Building& building);
  void add_piece(Writer& writer, Building& building, const Event& piece);
  void decide_job(Building& building, wire::Code status);
  Status begin_building(Writer& writer, Building& building);
  Status open_leftover(Writer& writer, Building& building);
  Status write_piece(Writer& writer, Building& building, const Event& piece);
  Status copy_local(Writer& writer, Building& building);
  void check_in_place(Writer& writer, Building& building);
  void finish_if_complete(Writer& writer, uint32_t number);
  void finish(Writer& writer, Building& building);
  void finish_in_place(Writer& writer, Building& building);
  Status set_metadata(int fd, const tree::Record& record, OwnerIds& ids, bool mode_is_set) const;
  Result<UniqueFd> create_staged(const Building& building, mode_t mode) const;
  Result<UniqueFd> open_local(const std::string& path) const;
  Result<UniqueFd> open_in_place(uint32_t entry) const;
  void end_job(Building& building, Outcome::Kind kind, Error error, bool keep_staged);
  void report_applied(Building& building, Outcome outcome);
  void give_up(Building& building, const Error& error, bool keep_staged);

  // Patches, on writer threads. A piece of work is done by the writer itself or by a copier.
  Status begin_patch(Writer& writer, Building& building);
  Status write_literal(Writer& writer, Building& building, const Event& piece);
  Status open_patch_files(Building& building);
  bool is_patch_finished(Writer& writer, Building& building);
  bool queue_work(Writer& writer, Building& building);
  void take_work(Building& building);
  // Copier threads.
  void run_copier();
  static void do_work(Patch& patch, FileCopy& copier);

  void run_committer();
  void commit(Building& building, DirectoryCache& directories);
  Status put_in_place(const Building& building, DirectoryCache& directories,
                      catalog::LocalStat& local);
  void post(Outcome outcome);

  ApplierOptions options_;
  Staging& staging_;
  std::atomic<unsigned> early_patches_ = 0;  // Large patches whose copies began ahead.
  std::vector<std::unique_ptr<Writer>> writers_;
  uint32_t next_job_ = 0;
  std::atomic<bool> stop_ = false;

  std::mutex finished_mutex_;
  std::condition_variable finished_changed_;
  std::vector<Building> finished_;  // Guarded by finished_mutex_; verified, not yet in place.
  uint64_t finished_bytes_ = 0;     // Guarded by finished_mutex_.
  bool commit_now_ = false;         // Guarded by finished_mutex_.
  std::thread committer_;

  std::mutex work_mutex_;
  std::condition_variable work_changed_;
  std::deque<std::shared_ptr<Patch>> work_;  // Guarded by work_mutex_.
  std::vector<std::thread> copiers_;

  std::mutex outcomes_mutex_;
  std::vector<Outcome> outcomes_;  // Guarded by outcomes_mutex_.
};

}  // namespace superlifter::client
