#include "client/applier.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "client/local_tree.h"
#include "core/base/check.h"
#include "core/base/escape.h"
#include "core/fs/beneath.h"

namespace superlifter::client {
namespace {

constexpr size_t kBatchFiles = 4096;  // Published together: one syncfs for all of them.
constexpr uint64_t kBatchBytes = 512 * kMiB;
constexpr auto kBatchAge = std::chrono::seconds(1);  // Nothing verified waits longer.
// Patches: up to the first, a writer does it all itself (handing over costs more); from the second
// on, copying begins before the literals are there, and what is complete is hashed on the way.
constexpr uint64_t kSmallPatchBytes = 1 << 20;
constexpr uint64_t kLargePatchBytes = 8 << 20;
constexpr uint64_t kHashAheadBytes = 64 << 20;   // Hash when at least so much more is complete.
constexpr unsigned kMaxEarly = 32;               // Large patches begun ahead; each holds two fds.
constexpr size_t kMaxWorkQueued = 16;            // Beyond that writers do it themselves.
constexpr unsigned kMaxCopiers = 4;              // Memory is the bound, not the cores.
constexpr uint64_t kLeastCloneBytes = 64 << 10;  // Smaller files are copied as fast as shared.
constexpr mode_t kPartialMode = 0600;  // While it grows: ours alone, and we can reopen it.

bool is_fatal_errno(int number) {
  return number == ENOSPC || number == EDQUOT || number == EROFS || number == EIO;
}

}  // namespace

// A patch on its way. Owned by its Building and by the work in hand, of which there is one at a
// time.
struct Applier::Patch {
  enum class Work : uint8_t { kCopyAhead, kHashAhead, kFinish };

  Patch(std::shared_ptr<const delta::Plan> plan, std::shared_ptr<const delta::InPlacePlan> in_place)
      : rebuild(std::move(plan), std::move(in_place)) {}
  ~Patch() {
    if (early_patches != nullptr) --*early_patches;
  }
  Patch(const Patch&) = delete;
  Patch& operator=(const Patch&) = delete;

  Rebuild rebuild;
  uint32_t job = 0;
  Writer* writer = nullptr;                        // To be told when a copier has done its work.
  Work work = Work::kCopyAhead;                    // In hand, or the last one.
  Status result;                                   // Of the last work.
  bool is_working = false;                         // Writer thread only, as what follows.
  bool is_finished = false;                        // kFinish succeeded.
  std::atomic<unsigned>* early_patches = nullptr;  // Counts this one.
};

struct Applier::Building {
  Job job;
  UniqueFd fd;  // Of the file that is being built, while it grows.
  std::optional<hash::Xxh128Hasher> hasher;
  uint64_t written_bytes = 0;  // Of a patch: its literals.
  hash::Xxh128 computed;
  std::shared_ptr<Patch> patch;  // Of a job with a plan.
  bool is_in_place = false;      // fd is the file in DEST.
  bool mode_is_set = false;      // Created with its final mode.
  bool has_all_bytes = false;
  bool is_decided = false;  // The server said OK.
  bool is_over = false;     // An outcome was posted; what still comes is dropped.
  bool from_local = false;
};

struct Applier::Event {
  enum class Kind : uint8_t { kBegin, kLocal, kPiece, kDecide, kWorked };
  uint32_t job = 0;
  Kind kind = Kind::kPiece;
  bool ends = false;
  wire::Code status = wire::Code::kOk;
  SlabRef slab;
  ByteView bytes;
  uint64_t offset = 0;
  std::unique_ptr<Job> begin;
};

struct Applier::Writer {
  explicit Writer(const std::atomic<bool>& stop) : copier(stop) {}

  std::vector<Event> unsent;  // Network thread only: queued since the last flush.
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Event> events;                         // Guarded by mutex.
  std::unordered_map<uint32_t, Building> building;  // Writer thread only.
  OwnerIds ids;                                     // Writer thread only.
  FileCopy copier;                                  // Writer thread only.
  std::unique_ptr<DirectoryCache> directories;      // Writer thread only.
  std::thread thread;
};

Applier::Applier(ApplierOptions options, Staging& staging)
    : options_(std::move(options)), staging_(staging) {
  CHECK(options_.writers > 0);
  for (unsigned i = 0; i < options_.writers; ++i) {
    auto writer = std::make_unique<Writer>(stop_);
    writer->directories = std::make_unique<DirectoryCache>(options_.destination_fd, options_.table);
    writers_.push_back(std::move(writer));
  }
  for (const auto& writer : writers_) {
    writer->thread = std::thread([this, &writer = *writer] { run_writer(writer); });
  }
  for (unsigned i = 0; i < std::min(options_.writers, kMaxCopiers); ++i) {
    copiers_.emplace_back([this] { run_copier(); });
  }
  committer_ = std::thread([this] { run_committer(); });
}

Applier::~Applier() {
  stop_ = true;
  for (const auto& writer : writers_) {
    const std::lock_guard lock(writer->mutex);
    writer->changed.notify_all();
  }
  {
    const std::lock_guard lock(finished_mutex_);
    finished_changed_.notify_all();
  }
  {
    const std::lock_guard lock(work_mutex_);
    work_changed_.notify_all();
  }
  for (const auto& writer : writers_) {
    writer->thread.join();
  }
  for (std::thread& copier : copiers_) {
    copier.join();
  }
  committer_.join();
}

// --- Network thread
// --------------------------------------------------------------------------------

void Applier::send(uint32_t job, Event event) {
  event.job = job;
  writers_[job % writers_.size()]->unsent.push_back(std::move(event));
}

uint32_t Applier::begin(Job job) {
  const uint32_t number = next_job_++;
  Event event;
  event.kind = Event::Kind::kBegin;
  event.begin = std::make_unique<Job>(std::move(job));
  send(number, std::move(event));
  return number;
}

void Applier::run_local(Job job) {
  Event event;
  event.kind = Event::Kind::kLocal;
  event.begin = std::make_unique<Job>(std::move(job));
  send(next_job_++, std::move(event));
}

void Applier::write(uint32_t job, SlabRef slab, ByteView bytes, uint64_t offset, bool ends) {
  Event event;
  event.kind = Event::Kind::kPiece;
  event.ends = ends;
  event.slab = std::move(slab);
  event.bytes = bytes;
  event.offset = offset;
  send(job, std::move(event));
}

void Applier::decide(uint32_t job, wire::Code status) {
  Event event;
  event.kind = Event::Kind::kDecide;
  event.status = status;
  send(job, std::move(event));
}

void Applier::flush() {
  for (const auto& writer : writers_) {
    if (writer->unsent.empty()) continue;
    const std::lock_guard lock(writer->mutex);
    for (Event& event : writer->unsent) {
      writer->events.push_back(std::move(event));
    }
    writer->unsent.clear();
    writer->changed.notify_one();
  }
}

void Applier::commit_now() {
  const std::lock_guard lock(finished_mutex_);
  commit_now_ = true;
  finished_changed_.notify_one();
}

std::vector<Applier::Outcome> Applier::take_outcomes() {
  const std::lock_guard lock(outcomes_mutex_);
  return std::exchange(outcomes_, {});
}

void Applier::post(Outcome outcome) {
  bool was_empty = false;
  {
    const std::lock_guard lock(outcomes_mutex_);
    was_empty = outcomes_.empty();
    outcomes_.push_back(std::move(outcome));
  }
  if (was_empty && options_.on_outcome) options_.on_outcome();
}

// --- Writer threads
// --------------------------------------------------------------------------------

void Applier::run_writer(Writer& writer) {
  std::deque<Event> events;
  while (!stop_) {
    {
      std::unique_lock lock(writer.mutex);
      writer.changed.wait(lock, [&] { return stop_ || !writer.events.empty(); });
      events.swap(writer.events);
    }
    while (!events.empty() && !stop_) {
      handle(writer, events.front());
      events.pop_front();
    }
  }
}

void Applier::handle(Writer& writer, Event& event) {
  if (event.kind == Event::Kind::kBegin || event.kind == Event::Kind::kLocal) {
    return begin_job(writer, event);
  }
  const auto found = writer.building.find(event.job);
  if (event.kind == Event::Kind::kWorked) {
    if (found == writer.building.end()) return;  // The job has failed meanwhile.
    found->second.patch->is_working = false;
    take_work(found->second);
    return finish_if_complete(writer, event.job);
  }
  CHECK(found != writer.building.end());
  Building& building = found->second;
  if (event.kind == Event::Kind::kPiece) {
    add_piece(writer, building, event);
    event.slab.reset();
  } else {
    decide_job(building, event.status);
  }
  finish_if_complete(writer, event.job);
}

void Applier::begin_job(Writer& writer, Event& event) {
  Building& building = writer.building[event.job];
  building.job = std::move(*event.begin);
  building.from_local = event.kind == Event::Kind::kLocal;
  if (building.job.plan != nullptr) {
    building.patch = std::make_shared<Patch>(building.job.plan, building.job.in_place_plan);
    building.patch->job = event.job;
    building.patch->writer = &writer;
    if (const Status begun = begin_patch(writer, building); !begun) {
      give_up(building, begun.error(), false);
    }
  }
  if (!building.from_local) return;
  if (building.patch == nullptr) begin_local(writer, building);
  building.has_all_bytes = building.is_decided = true;
  finish_if_complete(writer, event.job);
}

void Applier::begin_local(Writer& writer, Building& building) {
  if (building.job.check_only) return check_in_place(writer, building);
  const Status done = building.job.copy_from.empty() ? open_leftover(writer, building)
                                                     : copy_local(writer, building);
  if (done) return;
  // What is wrong with a local file is no failure of the pull: the network has the file.
  if (stop_) {
    building.is_over = true;  // A leftover stays for the next run.
  } else if (is_fatal_errno(done.error().sys_errno)) {
    end_job(building, Outcome::Kind::kFailed, done.error(), true);
  } else {
    end_job(building, Outcome::Kind::kMismatch, {}, false);
  }
}

void Applier::add_piece(Writer& writer, Building& building, const Event& piece) {
  building.has_all_bytes = piece.ends;
  if (building.is_over) return;
  const Status written = building.patch != nullptr ? write_literal(writer, building, piece)
                                                   : write_piece(writer, building, piece);
  if (!written) give_up(building, written.error(), building.patch == nullptr);
}

void Applier::decide_job(Building& building, wire::Code status) {
  building.is_decided = true;
  if (status == wire::Code::kOk) return;
  building.has_all_bytes = true;  // No more will come.
  if (building.is_over) return;
  const bool has_changed = status == wire::Code::kStale || status == wire::Code::kGone;
  end_job(building, has_changed ? Outcome::Kind::kStale : Outcome::Kind::kFailed,
          Error{has_changed ? Errc::kStale : Errc::kIo, 0,
                "the server says: " + std::string(wire::to_text(status))},
          false);
}

// Ends a job that cannot be built: with a mismatch if local content is to blame, else as failed.
void Applier::give_up(Building& building, const Error& error, bool keep_staged) {
  if (error.code == Errc::kClosed && stop_) {
    building.is_over = true;  // Nobody waits for its outcome.
  } else if (error.code == Errc::kStale || error.code == Errc::kCorrupt) {
    end_job(building, Outcome::Kind::kMismatch, {}, stop_);
  } else {
    end_job(building, Outcome::Kind::kFailed, error, keep_staged);
  }
}

// Never an old file: what it has beyond our last byte would stay.
Result<UniqueFd> Applier::create_staged(const Building& building, mode_t mode) const {
  UniqueFd fd(openat(staging_.stage_fd(), building.job.stage_name.c_str(),
                     O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_CREAT | O_EXCL, mode));
  if (!fd.valid()) return fail_errno(errno, "create a staged file");
  return fd;
}

// A regular file below DEST, for reading. kStale: it is not there any more, or cannot be read.
Result<UniqueFd> Applier::open_local(const std::string& path) const {
  const Result<RelPath> parsed = RelPath::parse(path);
  if (!parsed) return fail(Errc::kStale, parsed.error().message);
  Result<UniqueFd> fd = fs::open(fs::read_request(options_.destination_fd, *parsed));
  if (!fd) return fail(Errc::kStale, fd.error().message);
  struct stat stat{};
  if (fstat(fd->get(), &stat) != 0 || !S_ISREG(stat.st_mode)) {
    return fail(Errc::kStale, "is not the file it was");
  }
  return fd;
}

// The file in DEST itself, to be changed; a failure when it cannot be: then it is built in staging.
Result<UniqueFd> Applier::open_in_place(uint32_t entry) const {
  const Result<RelPath> path = RelPath::parse(options_.table.path(entry));
  if (!path) return std::unexpected(path.error());
  const OpenRequest read = fs::read_request(options_.destination_fd, *path);
  OpenRequest write = read;
  write.how.flags = (write.how.flags & ~uint64_t{O_ACCMODE}) | O_RDWR;
  const auto check = [](int fd, struct stat& stat) -> Status {
    const bool is_good = fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode) && stat.st_nlink == 1;
    return is_good ? Status() : fail(Errc::kUnsupported, "cannot be changed in place");
  };
  struct stat stat{};
  Result<UniqueFd> fd = fs::open(write);
  if (!fd && fd.error().sys_errno == EACCES) {
    // Ours, perhaps, but read-only; it gets its mode when it is done.
    const Result<UniqueFd> reading = fs::open(read);
    if (!reading || !check(reading->get(), stat)) return fd;
    if (fchmod(reading->get(), kPartialMode) != 0) return fd;
    fd = fs::open(write);
    if (!fd) static_cast<void>(fchmod(reading->get(), stat.st_mode & 07777U));
  }
  if (!fd) return fd;
  if (const Status checked = check(fd->get(), stat); !checked) {
    return std::unexpected(checked.error());
  }
  return fd;
}

// Opens the file to be built: the one in place if that is wanted and possible, else a staged one.
Status Applier::begin_building(Writer& writer, Building& building) {
  if (building.job.staged_bytes > 0) return open_leftover(writer, building);
  if (building.job.in_place && !building.from_local) {
    Result<UniqueFd> target = open_in_place(building.job.entry);
    if (target) {
      building.fd = std::move(*target);
      building.is_in_place = true;
      building.mode_is_set = false;
      return mark_unfinished(building.fd.get());
    }
  }
  Result<UniqueFd> staged = create_staged(
      building, building.mode_is_set ? wanted_mode(options_.table.record(building.job.entry), false)
                                     : kPartialMode);
  if (!staged) return std::unexpected(staged.error());
  building.fd = std::move(*staged);
  return {};
}

// Opens what an earlier run left and hashes it. kStale when it is not what it was.
Status Applier::open_leftover(Writer& writer, Building& building) {
  const char* const name = building.job.stage_name.c_str();
  constexpr int kFlags = O_RDWR | O_NOFOLLOW | O_CLOEXEC;
  UniqueFd fd(openat(staging_.stage_fd(), name, kFlags));
  if (!fd.valid() && errno == EACCES) {
    // It had got its final mode, which keeps us out too.
    static_cast<void>(fchmodat(staging_.stage_fd(), name, kPartialMode, 0));
    fd = UniqueFd(openat(staging_.stage_fd(), name, kFlags));
  }
  if (!fd.valid()) return fail_errno(errno, "open a staged file");
  building.fd = std::move(fd);
  building.hasher.emplace();
  if (ftruncate(building.fd.get(), static_cast<off_t>(building.job.staged_bytes)) != 0) {
    return fail_errno(errno, "truncate a staged file");
  }
  const Status hashed =
      writer.copier.hash(building.fd.get(), 0, building.job.staged_bytes, *building.hasher);
  if (hashed) building.written_bytes = building.job.staged_bytes;
  return hashed;
}

Status Applier::write_piece(Writer& writer, Building& building, const Event& piece) {
  const tree::Record& record = options_.table.record(building.job.entry);
  const bool whole_file = piece.ends && !building.fd.valid() && building.job.staged_bytes == 0;
  if (!building.fd.valid()) {
    // A file that comes in one piece is never resumed: it can have its mode from the start.
    building.mode_is_set = whole_file && !options_.owner;
    if (const Status begun = begin_building(writer, building); !begun) return begun;
  }
  CHECK(piece.offset == building.written_bytes);
  if (piece.bytes.size() > record.size_bytes - building.written_bytes) {
    return fail(Errc::kProtocol, "the server sent more bytes than the file has");
  }
  if (whole_file) {
    building.computed = hash::xxh128(piece.bytes);
  } else {
    if (!building.hasher) building.hasher.emplace();
    building.hasher->update(piece.bytes);
  }
  if (const Status written = write_at(building.fd.get(), piece.offset, piece.bytes); !written) {
    return written;
  }
  building.written_bytes += piece.bytes.size();
  return {};
}

// Builds the staged file from a local one that should have the same content. Where the file system
// can share content, the copy costs one read, to check it; else one read and one write.
Status Applier::copy_local(Writer& writer, Building& building) {
  const uint64_t size_bytes = options_.table.record(building.job.entry).size_bytes;
  const Result<UniqueFd> source = open_local(building.job.copy_from);
  if (!source) return std::unexpected(source.error());
  if (file_size(source->get()) != size_bytes) return fail(Errc::kStale, "is not the file it was");
  if (const Status begun = begin_building(writer, building); !begun) return begun;
  building.hasher.emplace();
  const int fd = building.fd.get();
  Status done;
  if (size_bytes >= kLeastCloneBytes && writer.copier.clone(source->get(), fd)) {
    if (file_size(fd) != size_bytes) return fail(Errc::kStale, "is not the file it was");
    done = writer.copier.hash(fd, 0, size_bytes, *building.hasher);
  } else {
    done = writer.copier.copy_hashed(source->get(), fd, size_bytes, *building.hasher);
  }
  if (done) building.written_bytes = size_bytes;
  return done;
}

// check_only: when the file in place has the right content, its mode, times and owner are set.
void Applier::check_in_place(Writer& writer, Building& building) {
  const tree::Record& record = options_.table.record(building.job.entry);
  const auto differs = [&] { end_job(building, Outcome::Kind::kMismatch, {}, false); };
  const Result<int> directory = writer.directories->get(record.parent);
  if (!directory) return differs();
  const std::string name(options_.table.name(building.job.entry));
  const UniqueFd fd(
      openat(*directory, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  struct stat stat{};
  if (!fd.valid() || fstat(fd.get(), &stat) != 0 || !S_ISREG(stat.st_mode)) return differs();
  if (static_cast<uint64_t>(stat.st_size) != record.size_bytes) return differs();
  building.hasher.emplace();
  if (!writer.copier.hash(fd.get(), 0, record.size_bytes, *building.hasher)) return differs();
  if (building.hasher->digest() != building.job.digest) return differs();
  if (const Status set = set_metadata(fd.get(), record, writer.ids, false); !set) {
    return end_job(building, Outcome::Kind::kFailed, set.error(), false);
  }
  if (fstat(fd.get(), &stat) != 0) return differs();
  Outcome outcome;
  outcome.entry = building.job.entry;
  outcome.from_local = true;
  outcome.checked_only = true;
  outcome.digest = building.job.digest;
  outcome.local = to_local_stat(stat);
  building.is_over = true;
  post(std::move(outcome));
}

Status Applier::set_metadata(int fd, const tree::Record& record, OwnerIds& ids,
                             bool mode_is_set) const {
  if (options_.owner) {
    const uint32_t user = ids.user(options_.table.owner_name(record.owner));
    const uint32_t group = ids.group(options_.table.owner_name(record.group));
    if ((user != UINT32_MAX || group != UINT32_MAX) && fchown(fd, user, group) != 0) {
      return fail_errno(errno, "set the owner");
    }
  }
  // After chown, which clears setuid and setgid.
  if (!mode_is_set && fchmod(fd, wanted_mode(record, options_.owner)) != 0) {
    return fail_errno(errno, "set the mode");
  }
  const timespec times[2] = {{.tv_sec = 0, .tv_nsec = UTIME_OMIT},
                             {.tv_sec = record.mtime_s, .tv_nsec = record.mtime_ns}};
  if (futimens(fd, times) != 0) return fail_errno(errno, "set the time");
  return {};
}

void Applier::finish_if_complete(Writer& writer, uint32_t number) {
  const auto found = writer.building.find(number);
  Building& building = found->second;
  if (!building.has_all_bytes || !building.is_decided) return;
  if (!building.is_over && building.patch != nullptr && !is_patch_finished(writer, building)) {
    if (!building.is_over) return;
  }
  if (!building.is_over) finish(writer, building);
  writer.building.erase(found);
}

// Hands a file that is complete to the committer, if it is right.
void Applier::finish(Writer& writer, Building& building) {
  const tree::Record& record = options_.table.record(building.job.entry);
  if (building.hasher) building.computed = building.hasher->digest();
  const bool is_right = building.written_bytes == record.size_bytes &&
                        (!building.job.digest.known() || building.computed == building.job.digest);
  if (!is_right) return end_job(building, Outcome::Kind::kMismatch, {}, false);
  if (building.is_in_place) return finish_in_place(writer, building);
  if (const Status set = set_metadata(building.fd.get(), record, writer.ids, building.mode_is_set);
      !set) {
    return end_job(building, Outcome::Kind::kFailed, set.error(), true);
  }
  if (const Status closed = building.fd.close_checked("close a staged file"); !closed) {
    return end_job(building, Outcome::Kind::kFailed, closed.error(), true);
  }
  building.hasher.reset();
  building.patch.reset();
  const std::lock_guard lock(finished_mutex_);
  finished_bytes_ += record.size_bytes;
  finished_.push_back(std::move(building));
  const bool full = finished_.size() == kBatchFiles || finished_bytes_ >= kBatchBytes;
  if (finished_.size() == 1 || full) finished_changed_.notify_one();
}

// The file in DEST has its content: on the disk too before it gets its time.
void Applier::finish_in_place(Writer& writer, Building& building) {
  const tree::Record& record = options_.table.record(building.job.entry);
  const int fd = building.fd.get();
  const auto failed = [&](const Error& error) {
    end_job(building, Outcome::Kind::kFailed, error, false);
  };
  if (building.patch == nullptr) {
    if (ftruncate(fd, static_cast<off_t>(record.size_bytes)) != 0) {
      return failed(fail_errno(errno, "truncate").error());
    }
    if (fsync(fd) != 0) return failed(fail_errno(errno, "sync").error());
  }
  if (const Status set = set_metadata(fd, record, writer.ids, false); !set) {
    return failed(set.error());
  }
  struct stat stat{};
  if (fstat(fd, &stat) != 0) return failed(fail_errno(errno, "stat").error());
  unlinkat(staging_.stage_fd(), building.job.stage_name.c_str(), 0);
  Outcome outcome;
  outcome.local = to_local_stat(stat);
  report_applied(building, std::move(outcome));
}

void Applier::report_applied(Building& building, Outcome outcome) {
  building.is_over = true;
  outcome.entry = building.job.entry;
  outcome.from_local = building.from_local;
  outcome.is_copy = !building.job.copy_from.empty();
  outcome.is_patch = building.job.plan != nullptr;
  if (outcome.is_patch) outcome.copied_bytes = building.job.plan->copied_bytes();
  outcome.digest = building.computed;
  post(std::move(outcome));
}

void Applier::end_job(Building& building, Outcome::Kind kind, Error error, bool keep_staged) {
  if (building.is_over) return;
  building.is_over = true;
  building.fd.reset();
  if (!keep_staged && !building.job.stage_name.empty()) {
    unlinkat(staging_.stage_fd(), building.job.stage_name.c_str(), 0);
  }
  Outcome outcome;
  outcome.entry = building.job.entry;
  outcome.kind = kind;
  outcome.from_local = building.from_local;
  outcome.is_patch = building.job.plan != nullptr;
  outcome.error = std::move(error);
  if (kind != Outcome::Kind::kMismatch) {
    outcome.error.message =
        escape(options_.table.path(outcome.entry)) + ": " + outcome.error.message;
  }
  outcome.is_fatal = kind == Outcome::Kind::kFailed && is_fatal_errno(outcome.error.sys_errno);
  post(std::move(outcome));
}

// --- Patches
// ---------------------------------------------------------------------------------------

// Begins the copies of a large patch; of others everything waits until the literals are there.
Status Applier::begin_patch(Writer& writer, Building& building) {
  const uint64_t size_bytes = options_.table.record(building.job.entry).size_bytes;
  CHECK(building.job.plan->target_bytes == size_bytes);
  CHECK(building.job.digest.known() && building.job.staged_bytes == 0);
  const bool is_early = size_bytes >= kLargePatchBytes && !building.job.in_place &&
                        early_patches_ < kMaxEarly && !building.from_local;
  if (!is_early) return {};
  if (const Status opened = open_patch_files(building); !opened) return opened;
  building.patch->early_patches = &early_patches_;
  ++early_patches_;
  building.patch->work = Patch::Work::kCopyAhead;
  static_cast<void>(queue_work(writer, building));  // If there is no room, it is done at the end.
  return {};
}

// What finishing needs and is not open yet.
Status Applier::open_patch_files(Building& building) {
  Rebuild& rebuild = building.patch->rebuild;
  if (building.job.in_place && building.job.in_place_plan != nullptr) {
    Result<UniqueFd> target = open_in_place(building.job.entry);
    if (target) {
      rebuild.set_target(std::move(*target));
      if (!rebuild.needs_staged()) return {};
    }
  }
  if (!rebuild.is_in_place() && !rebuild.has_basis() && !rebuild.is_copied()) {
    Result<UniqueFd> basis = open_local(building.job.basis);
    if (!basis) return std::unexpected(basis.error());
    rebuild.set_basis(std::move(*basis));
  }
  if (rebuild.has_staged()) return {};
  Result<UniqueFd> staged = create_staged(building, kPartialMode);
  if (!staged) return std::unexpected(staged.error());
  rebuild.set_staged(std::move(*staged));
  return {};
}

Status Applier::write_literal(Writer& writer, Building& building, const Event& piece) {
  Patch& patch = *building.patch;
  if (piece.bytes.empty()) return {};
  if (!patch.rebuild.has_staged()) {
    Result<UniqueFd> staged = create_staged(building, kPartialMode);
    if (!staged) return std::unexpected(staged.error());
    patch.rebuild.set_staged(std::move(*staged));
  }
  if (const Status written = patch.rebuild.write_literal(piece.offset, piece.bytes); !written) {
    return written;
  }
  const bool may_hash = patch.early_patches != nullptr && !patch.is_working && !piece.ends &&
                        patch.rebuild.is_copied();
  if (may_hash && patch.rebuild.frontier() >= patch.rebuild.hashed_bytes() + kHashAheadBytes) {
    patch.work = Patch::Work::kHashAhead;
    static_cast<void>(queue_work(writer, building));
  }
  return {};
}

// Whether the file of a patch whose literals are all there is rebuilt. If not, it is on its way, or
// the job has ended.
bool Applier::is_patch_finished(Writer& writer, Building& building) {
  Patch& patch = *building.patch;
  if (patch.is_working) return false;
  if (!patch.is_finished) {
    const bool is_whole = patch.rebuild.literal_bytes() + building.job.plan->copied_bytes() ==
                          building.job.plan->target_bytes;
    const Status opened =
        is_whole ? open_patch_files(building) : fail(Errc::kStale, "literals are missing");
    if (!opened) {
      give_up(building, opened.error(), false);
      return false;
    }
    patch.work = Patch::Work::kFinish;
    if (queue_work(writer, building)) return false;
    do_work(patch, writer.copier);
    take_work(building);
  }
  return patch.is_finished;
}

// Hands a work to the copiers, unless it is better done here and now.
bool Applier::queue_work(Writer& writer, Building& building) {
  const std::shared_ptr<Patch>& patch = building.patch;
  CHECK(!patch->is_working && patch->writer == &writer);
  if (patch->rebuild.plan().target_bytes < kSmallPatchBytes) return false;
  const std::lock_guard lock(work_mutex_);
  if (work_.size() >= kMaxWorkQueued) return false;
  patch->is_working = true;
  work_.push_back(patch);
  work_changed_.notify_one();
  return true;
}

// Looks at what a work has come to.
void Applier::take_work(Building& building) {
  Patch& patch = *building.patch;
  if (building.is_over) return;
  if (!patch.result) return give_up(building, patch.result.error(), false);
  if (patch.work != Patch::Work::kFinish) return;
  patch.is_finished = true;
  building.computed = patch.rebuild.digest();
  building.written_bytes = patch.rebuild.plan().target_bytes;
  building.is_in_place = patch.rebuild.is_in_place();
  building.fd = patch.rebuild.take_built();
}

void Applier::do_work(Patch& patch, FileCopy& copier) {
  switch (patch.work) {
    case Patch::Work::kCopyAhead:
      patch.result = patch.rebuild.copy_ahead(copier);
      break;
    case Patch::Work::kHashAhead:
      patch.result = patch.rebuild.hash_ahead(copier);
      break;
    case Patch::Work::kFinish:
      patch.result = patch.rebuild.finish(copier);
      break;
  }
}

void Applier::run_copier() {
  FileCopy copier(stop_);
  while (true) {
    std::shared_ptr<Patch> patch;
    {
      std::unique_lock lock(work_mutex_);
      work_changed_.wait(lock, [&] { return stop_ || !work_.empty(); });
      if (stop_) return;
      patch = std::move(work_.front());
      work_.pop_front();
    }
    do_work(*patch, copier);
    Event event;
    event.job = patch->job;
    event.kind = Event::Kind::kWorked;
    Writer& writer = *patch->writer;
    patch.reset();
    const std::lock_guard lock(writer.mutex);
    writer.events.push_back(std::move(event));
    writer.changed.notify_one();
  }
}

// --- Committer thread
// ------------------------------------------------------------------------------

void Applier::run_committer() {
  DirectoryCache directories(options_.destination_fd, options_.table);
  while (true) {
    std::vector<Building> batch;
    {
      std::unique_lock lock(finished_mutex_);
      finished_changed_.wait(lock, [&] { return stop_ || !finished_.empty(); });
      finished_changed_.wait_for(lock, kBatchAge, [&] {
        return stop_ || commit_now_ || finished_.size() >= kBatchFiles ||
               finished_bytes_ >= kBatchBytes;
      });
      if (stop_) return;
      batch.swap(finished_);
      finished_bytes_ = 0;
      commit_now_ = false;
    }
    // One sync for the batch: after a power cut a renamed file has its content.
    if (syncfs(staging_.stage_fd()) != 0) {
      const int number = errno;
      for (Building& building : batch) {
        end_job(building, Outcome::Kind::kFailed, fail_errno(number, "sync").error(), true);
      }
      continue;
    }
    for (Building& building : batch) {
      if (stop_) return;
      commit(building, directories);
    }
  }
}

void Applier::commit(Building& building, DirectoryCache& directories) {
  Outcome outcome;
  if (const Status placed = put_in_place(building, directories, outcome.local); !placed) {
    end_job(building, Outcome::Kind::kFailed, placed.error(), false);
    return;
  }
  report_applied(building, std::move(outcome));
}

Status Applier::put_in_place(const Building& building, DirectoryCache& directories,
                             catalog::LocalStat& local) {
  const uint32_t entry = building.job.entry;
  const Result<int> directory = directories.get(options_.table.record(entry).parent);
  if (!directory) return std::unexpected(directory.error());
  const std::string name(options_.table.name(entry));
  if (const Status replaced = replace_from_stage(staging_, building.job.stage_name, *directory,
                                                 name, options_.delete_extra);
      !replaced) {
    return replaced;
  }
  struct stat stat{};
  if (fstatat(*directory, name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0) {
    return fail_errno(errno, "stat");
  }
  local = to_local_stat(stat);
  return {};
}

}  // namespace superlifter::client
