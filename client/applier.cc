#include "client/applier.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/fs.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
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
constexpr size_t kCopyBytes = 1 << 20;
constexpr size_t kMaxOpenDirectories = 64;  // Per thread.
constexpr mode_t kPartialMode = 0600;       // While it grows: ours alone, and we can reopen it.
constexpr uint16_t kSetIdBits = 06000;

bool is_fatal_errno(int number) {
  return number == ENOSPC || number == EDQUOT || number == EROFS || number == EIO;
}

Status write_all(int fd, ByteView bytes) {
  while (!bytes.empty()) {
    const ssize_t count = write(fd, bytes.data(), bytes.size());
    if (count < 0) {
      if (errno == EINTR) continue;
      return fail_errno(errno, "write");
    }
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return {};
}

uint32_t numeric_id(std::string_view name) {
  uint32_t id = UINT32_MAX;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), id);
  return error == std::errc() && end == name.data() + name.size() ? id : UINT32_MAX;
}

}  // namespace

Result<int> DirectoryCache::get(uint32_t directory) {
  const auto found = open_.find(directory);
  if (found != open_.end()) return found->second.get();
  const Result<RelPath> path = RelPath::parse(table_.path(directory));
  if (!path) return std::unexpected(path.error());
  Result<UniqueFd> fd = fs::open_directory(destination_fd_, *path);
  if (!fd) return std::unexpected(fd.error());
  if (open_.size() >= kMaxOpenDirectories) open_.clear();
  return open_.emplace(directory, std::move(*fd)).first->second.get();
}

uint32_t OwnerIds::user(std::string_view name) {
  if (name.empty()) return UINT32_MAX;
  const auto [found, is_new] = users_.try_emplace(std::string(name), UINT32_MAX);
  if (!is_new) return found->second;
  passwd entry{};
  passwd* result = nullptr;
  std::vector<char> buffer(16 << 10);
  if (getpwnam_r(found->first.c_str(), &entry, buffer.data(), buffer.size(), &result) == 0 &&
      result != nullptr) {
    found->second = result->pw_uid;
  } else {
    found->second = numeric_id(name);
  }
  return found->second;
}

uint32_t OwnerIds::group(std::string_view name) {
  if (name.empty()) return UINT32_MAX;
  const auto [found, is_new] = groups_.try_emplace(std::string(name), UINT32_MAX);
  if (!is_new) return found->second;
  struct group entry{};
  struct group* result = nullptr;
  std::vector<char> buffer(64 << 10);
  if (getgrnam_r(found->first.c_str(), &entry, buffer.data(), buffer.size(), &result) == 0 &&
      result != nullptr) {
    found->second = result->gr_gid;
  } else {
    found->second = numeric_id(name);
  }
  return found->second;
}

uint16_t wanted_mode(const tree::Record& record, bool owner) {
  return owner ? record.mode : static_cast<uint16_t>(record.mode & ~kSetIdBits);
}

struct Applier::Building {
  Job job;
  UniqueFd fd;  // Of the staged file, while it grows.
  std::optional<hash::Xxh128Hasher> hasher;
  uint64_t written_bytes = 0;
  hash::Xxh128 computed;
  bool mode_is_set = false;  // Created with its final mode.
  bool has_all_bytes = false;
  bool is_decided = false;  // The server said OK.
  bool is_over = false;     // An outcome was posted; what still comes is dropped.
  bool from_local = false;
};

struct Applier::Event {
  enum class Kind : uint8_t { kBegin, kLocal, kPiece, kDecide };
  uint32_t job = 0;
  Kind kind = Kind::kPiece;
  bool ends = false;
  wire::Code status = wire::Code::kOk;
  SlabRef slab;
  ByteView bytes;
  std::unique_ptr<Job> begin;
};

struct Applier::Writer {
  std::vector<Event> unsent;  // Network thread only: queued since the last flush.
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Event> events;                         // Guarded by mutex.
  std::unordered_map<uint32_t, Building> building;  // Writer thread only.
  OwnerIds ids;                                     // Writer thread only.
  std::vector<uint8_t> buffer;                      // Writer thread only: for copies and checks.
  std::unique_ptr<DirectoryCache> directories;      // Writer thread only.
  std::thread thread;
};

Applier::Applier(ApplierOptions options, Staging& staging)
    : options_(std::move(options)), staging_(staging) {
  CHECK(options_.writers > 0);
  for (unsigned i = 0; i < options_.writers; ++i) {
    auto writer = std::make_unique<Writer>();
    writer->directories = std::make_unique<DirectoryCache>(options_.destination_fd, options_.table);
    writers_.push_back(std::move(writer));
  }
  for (const auto& writer : writers_) {
    writer->thread = std::thread([this, &writer = *writer] { run_writer(writer); });
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
  for (const auto& writer : writers_) {
    writer->thread.join();
  }
  committer_.join();
}

// --- Network thread
// --------------------------------------------------------------------------------

uint32_t Applier::begin(Job job) {
  const uint32_t number = next_job_++;
  Event event;
  event.job = number;
  event.kind = Event::Kind::kBegin;
  event.begin = std::make_unique<Job>(std::move(job));
  writers_[number % writers_.size()]->unsent.push_back(std::move(event));
  return number;
}

void Applier::run_local(Job job) {
  const uint32_t number = next_job_++;
  Event event;
  event.job = number;
  event.kind = Event::Kind::kLocal;
  event.begin = std::make_unique<Job>(std::move(job));
  writers_[number % writers_.size()]->unsent.push_back(std::move(event));
}

void Applier::write(uint32_t job, SlabRef slab, ByteView bytes, bool ends) {
  Event event;
  event.job = job;
  event.kind = Event::Kind::kPiece;
  event.ends = ends;
  event.slab = std::move(slab);
  event.bytes = bytes;
  writers_[job % writers_.size()]->unsent.push_back(std::move(event));
}

void Applier::decide(uint32_t job, wire::Code status) {
  Event event;
  event.job = job;
  event.kind = Event::Kind::kDecide;
  event.status = status;
  writers_[job % writers_.size()]->unsent.push_back(std::move(event));
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
    Building& building = writer.building[event.job];
    building.job = std::move(*event.begin);
    if (event.kind == Event::Kind::kBegin) return;
    building.from_local = true;
    if (building.job.check_only) {
      check_in_place(writer, building);
      writer.building.erase(event.job);
      return;
    }
    const Status done =
        building.job.copy_from.empty() ? begin_building(building) : copy_local(building);
    if (!done) {
      // Whatever kept the local copy from being used, the network has the file.
      if (stop_) return;  // A leftover stays for the next run.
      if (is_fatal_errno(done.error().sys_errno)) {
        end_job(building, Outcome::Kind::kFailed, done.error(), true);
      } else {
        end_job(building, Outcome::Kind::kMismatch, {}, false);
      }
    }
    building.has_all_bytes = building.is_decided = true;
    finish_if_complete(writer, event.job);
    return;
  }
  const auto found = writer.building.find(event.job);
  CHECK(found != writer.building.end());
  Building& building = found->second;
  if (event.kind == Event::Kind::kPiece) {
    building.has_all_bytes = event.ends;
    if (!building.is_over) {
      const bool whole_file = event.ends && !building.fd.valid() && building.job.staged_bytes == 0;
      const Status written = write_piece(building, event.bytes, whole_file);
      if (!written && written.error().code == Errc::kCorrupt) {
        end_job(building, Outcome::Kind::kMismatch, {}, stop_);  // The leftover cannot be read.
      } else if (!written) {
        end_job(building, Outcome::Kind::kFailed, written.error(), true);
      }
    }
    event.slab.reset();
  } else {
    building.is_decided = true;
    if (event.status != wire::Code::kOk) {
      if (!building.is_over) {
        const bool has_changed =
            event.status == wire::Code::kStale || event.status == wire::Code::kGone;
        end_job(building, has_changed ? Outcome::Kind::kStale : Outcome::Kind::kFailed,
                Error{has_changed ? Errc::kStale : Errc::kIo, 0,
                      "the server says: " + std::string(wire::to_text(event.status))},
                false);
      }
      writer.building.erase(found);
      return;
    }
  }
  finish_if_complete(writer, event.job);
}

// Opens the staged file; a leftover is hashed up to where it ends.
Status Applier::begin_building(Building& building) {
  const char* const name = building.job.stage_name.c_str();
  constexpr int kFlags = O_RDWR | O_NOFOLLOW | O_CLOEXEC;
  if (building.job.staged_bytes == 0) {
    // Never an old file: what it has beyond our last byte would stay.
    building.fd = UniqueFd(
        openat(staging_.stage_fd(), name, kFlags | O_CREAT | O_EXCL,
               building.mode_is_set ? wanted_mode(options_.table.record(building.job.entry), false)
                                    : kPartialMode));
    if (!building.fd.valid()) return fail_errno(errno, "create a staged file");
    return {};
  }
  int fd = openat(staging_.stage_fd(), name, kFlags);
  if (fd < 0 && errno == EACCES) {
    // It had got its final mode, which keeps us out too.
    static_cast<void>(fchmodat(staging_.stage_fd(), name, kPartialMode, 0));
    fd = openat(staging_.stage_fd(), name, kFlags);
  }
  if (fd < 0) return fail_errno(errno, "open a staged file");
  building.fd = UniqueFd(fd);
  building.hasher.emplace();
  if (ftruncate(building.fd.get(), static_cast<off_t>(building.job.staged_bytes)) != 0) {
    return fail_errno(errno, "truncate a staged file");
  }
  if (const Status hashed =
          hash_range(building.fd.get(), building.job.staged_bytes, *building.hasher);
      !hashed) {
    return hashed;
  }
  building.written_bytes = building.job.staged_bytes;
  return {};
}

// Hashes [0, length) from the fd's position on. kCorrupt when the file ends before.
Status Applier::hash_range(int fd, uint64_t length_bytes, hash::Xxh128Hasher& hasher) {
  std::vector<uint8_t> buffer(std::min<uint64_t>(kCopyBytes, length_bytes));
  while (length_bytes > 0) {
    if (stop_) return fail(Errc::kClosed, "interrupted");
    const ssize_t count =
        ::read(fd, buffer.data(), std::min<uint64_t>(buffer.size(), length_bytes));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail(Errc::kCorrupt, std::string("read: ") + std::strerror(errno));
    if (count == 0) return fail(Errc::kCorrupt, "file is shorter than it was");
    hasher.update(ByteView(buffer).first(static_cast<size_t>(count)));
    length_bytes -= static_cast<uint64_t>(count);
  }
  return {};
}

Status Applier::write_piece(Building& building, ByteView bytes, bool whole_file) {
  const tree::Record& record = options_.table.record(building.job.entry);
  if (!building.fd.valid()) {
    // A file that comes in one piece is never resumed: it can have its mode from the start.
    building.mode_is_set = whole_file && !options_.owner;
    if (const Status begun = begin_building(building); !begun) return begun;
  }
  if (bytes.size() > record.size_bytes - std::min(record.size_bytes, building.written_bytes)) {
    return fail(Errc::kProtocol, "the server sent more bytes than the file has");
  }
  if (whole_file) {
    building.computed = hash::xxh128(bytes);
  } else {
    if (!building.hasher) building.hasher.emplace();
    building.hasher->update(bytes);
  }
  if (const Status written = write_all(building.fd.get(), bytes); !written) return written;
  building.written_bytes += bytes.size();
  return {};
}

Status Applier::copy_local(Building& building) {
  const tree::Record& record = options_.table.record(building.job.entry);
  const Result<RelPath> path = RelPath::parse(building.job.copy_from);
  if (!path) return std::unexpected(path.error());
  const Result<UniqueFd> source = fs::open(fs::read_request(options_.destination_fd, *path));
  if (!source) return std::unexpected(source.error());
  struct stat stat{};
  if (fstat(source->get(), &stat) != 0) return fail_errno(errno, "stat");
  if (!S_ISREG(stat.st_mode) || static_cast<uint64_t>(stat.st_size) != record.size_bytes) {
    return fail(Errc::kStale, "is not the file it was");
  }
  if (const Status begun = begin_building(building); !begun) return begun;
  building.hasher.emplace();
  std::vector<uint8_t> buffer(std::min<uint64_t>(kCopyBytes, record.size_bytes + 1));
  while (!stop_) {
    const ssize_t count = ::read(source->get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    // No errno: a local file that cannot be read is no failure of the destination.
    if (count < 0) return fail(Errc::kStale, std::string("read: ") + std::strerror(errno));
    if (count == 0) return {};
    if (const Status written =
            write_piece(building, ByteView(buffer).first(static_cast<size_t>(count)), false);
        !written) {
      return written;
    }
  }
  return fail(Errc::kClosed, "interrupted");
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
  if (!hash_range(fd.get(), record.size_bytes, *building.hasher)) return differs();
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
  if (building.is_over) {
    writer.building.erase(found);
    return;
  }
  const tree::Record& record = options_.table.record(building.job.entry);
  const auto give_up = [&](Outcome::Kind kind, Error error) {
    end_job(building, kind, std::move(error), kind == Outcome::Kind::kFailed);
    writer.building.erase(found);
  };
  if (building.hasher) building.computed = building.hasher->digest();
  const bool is_right = building.written_bytes == record.size_bytes &&
                        (!building.job.digest.known() || building.computed == building.job.digest);
  if (!is_right) return give_up(Outcome::Kind::kMismatch, {});
  if (const Status set = set_metadata(building.fd.get(), record, writer.ids, building.mode_is_set);
      !set) {
    return give_up(Outcome::Kind::kFailed, set.error());
  }
  if (const Status closed = building.fd.close_checked("close a staged file"); !closed) {
    return give_up(Outcome::Kind::kFailed, closed.error());
  }
  building.hasher.reset();
  {
    const std::lock_guard lock(finished_mutex_);
    finished_bytes_ += record.size_bytes;
    finished_.push_back(std::move(building));
    const bool full = finished_.size() == kBatchFiles || finished_bytes_ >= kBatchBytes;
    if (finished_.size() == 1 || full) finished_changed_.notify_one();
  }
  writer.building.erase(found);
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
  outcome.error = std::move(error);
  if (kind != Outcome::Kind::kMismatch) {
    outcome.error.message =
        escape(options_.table.path(outcome.entry)) + ": " + outcome.error.message;
  }
  outcome.is_fatal = kind == Outcome::Kind::kFailed && is_fatal_errno(outcome.error.sys_errno);
  post(std::move(outcome));
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
  outcome.entry = building.job.entry;
  outcome.from_local = building.from_local;
  outcome.is_copy = !building.job.copy_from.empty();
  outcome.digest = building.computed;
  post(std::move(outcome));
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

Status replace_from_stage(Staging& staging, const std::string& stage_name, int directory_fd,
                          const std::string& name, bool may_remove_directory) {
  const auto rename_it = [&](unsigned flags) {
    return renameat2(staging.stage_fd(), stage_name.c_str(), directory_fd, name.c_str(), flags) ==
           0;
  };
  if (rename_it(0)) return {};
  if (errno != EISDIR && errno != ENOTEMPTY && errno != EEXIST && errno != ENOTDIR) {
    return fail_errno(errno, "rename into place");
  }
  // A directory is in the way of something else, or something else in the way of a directory.
  if (unlinkat(directory_fd, name.c_str(), AT_REMOVEDIR) == 0 && rename_it(0)) return {};
  struct stat stat{};
  if (fstatat(directory_fd, name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0) {
    return fail_errno(errno, "stat");
  }
  if (S_ISDIR(stat.st_mode) && !may_remove_directory) {
    return fail(Errc::kIo,
                "is a directory with content here and something else at the source: "
                "remove it, or pull with --delete and without a filter, to replace it");
  }
  // One atomic swap, then the old content goes from staging.
  uint64_t removed = 0;
  if (rename_it(RENAME_EXCHANGE)) return remove_tree(staging.stage_fd(), stage_name, removed);
  // File systems without the swap.
  if (const Status gone = remove_tree(directory_fd, name, removed); !gone) return gone;
  if (!rename_it(0)) return fail_errno(errno, "rename into place");
  return {};
}

}  // namespace superlifter::client
