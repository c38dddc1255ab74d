#include "core/catalog/file_hasher.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>

#include "core/base/escape.h"
#include "core/base/log.h"
#include "core/base/rel_path.h"
#include "core/fs/beneath.h"

namespace superlifter::catalog {
namespace {

constexpr size_t kChunkBytes = 1 << 20;
constexpr uint64_t kLargeFileBytes = 64 << 20;
constexpr uint64_t kReadAheadBytes = 1 << 20;  // From here on the kernel is told what comes.
constexpr int kMostReads = 3;
constexpr unsigned kMostThreads = 256;
constexpr std::chrono::milliseconds kProgressInterval(200);
// Kernel time stamps move by ticks of at most 10 ms.
constexpr int kMostTicksMs = 20;

int64_t nanoseconds(const timespec& time) {
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// A write in the same tick as the one before leaves no trace in ctime. So a file that was changed
// within this tick is read only when the next has begun: from then on a change shows. A ctime in
// the future (a file server's clock) cannot be waited for.
void wait_for_next_tick(const struct stat& stat) {
  for (int waited_ms = 0; waited_ms < kMostTicksMs; ++waited_ms) {
    timespec now{};
    if (::clock_gettime(CLOCK_REALTIME_COARSE, &now) != 0) return;
    const int64_t ahead = nanoseconds(stat.st_ctim) - nanoseconds(now);
    if (ahead < 0 || ahead > int64_t{kMostTicksMs} * 1'000'000) return;
    const timespec millisecond{.tv_sec = 0, .tv_nsec = 1'000'000};
    static_cast<void>(::nanosleep(&millisecond, nullptr));  // A signal may shorten it.
  }
}

class Hashing {
 public:
  Hashing(const IndexOptions& options, Scan& scan, std::span<const uint32_t> files,
          const HashSinks& sinks)
      : options_(options),
        scan_(scan),
        table_(scan.table.view()),
        files_(files),
        journal_(sinks.journal),
        keeper_(sinks.keeper) {}

  Result<HashOutcome> run(const std::function<void(HashCounts)>& progress) {
    const size_t wanted = std::clamp<size_t>(options_.threads, 1, kMostThreads);
    std::vector<std::jthread> threads;
    threads_running_ = std::min(wanted, files_.size());
    for (size_t i = 0, count = threads_running_; i < count; ++i) {
      try {
        threads.emplace_back([this] { work(); });
      } catch (const std::system_error& error) {
        // Fewer threads are slower and no worse; with none at all, this one does it.
        log_warning("hash: start thread {} of {}: {}", i + 1, count, error.what());
        const std::lock_guard lock(mutex_);
        threads_running_ -= count - i;
        break;
      }
    }
    if (threads.empty() && !files_.empty()) {
      threads_running_ = 1;
      work();
    }
    wait(progress);
    threads.clear();
    keeper_.flush();
    journal_.flush();
    if (fatal_) return std::unexpected(*fatal_);
    if (is_stopped()) return fail(Errc::kClosed, "hash: stopped");
    outcome_.counts = counts();
    return std::move(outcome_);
  }

 private:
  // One thread's tools.
  struct Tools {
    explicit Tools(SignatureKeeper& keeper) : signer(keeper) {}
    hash::Xxh128Hasher xxh;
    hash::Sha256Hasher sha;
    FileSigner signer;
    Bytes buffer = Bytes(kChunkBytes);
  };

  enum class ReadResult : uint8_t { kDigested, kChanged, kFailed, kStopped };

  void wait(const std::function<void(HashCounts)>& progress) {
    std::unique_lock lock(mutex_);
    while (threads_running_ > 0) {
      ended_.wait_for(lock, kProgressInterval);
      if (!progress) continue;
      lock.unlock();
      progress(counts());
      lock.lock();
    }
  }

  void work() {
    Tools tools(keeper_);
    while (!is_stopped() && !failed_.load(std::memory_order_relaxed)) {
      const size_t next = next_.fetch_add(1, std::memory_order_relaxed);
      if (next >= files_.size()) break;
      hash_file(files_[next], tools);
    }
    const std::lock_guard lock(mutex_);
    --threads_running_;
    ended_.notify_all();
  }

  void hash_file(uint32_t entry, Tools& tools) {
    HashSurprise surprise;
    surprise.entry = entry;
    // Each entry is one thread's alone, and the scan's owner waits for all threads before it looks.
    scan_.xxh[entry] = {};
    scan_.sha[entry] = {};
    scan_.signatures[entry] = 0;
    const Result<RelPath> path = RelPath::parse(table_.path(entry));
    if (!path) return fail_all(path.error());
    for (int reads = 0; reads < kMostReads; ++reads) {
      const Result<UniqueFd> fd = open_file(*path);
      if (!fd) return cannot_open(surprise, fd.error());
      if (::fstat(fd->get(), &surprise.stat) != 0) {
        return cannot_open(surprise, Error{Errc::kIo, errno, std::strerror(errno)});
      }
      if (!S_ISREG(surprise.stat.st_mode)) {
        surprise.kind = HashSurprise::Kind::kGone;
        return report(surprise);
      }
      wait_for_next_tick(surprise.stat);
      switch (read_file(fd->get(), surprise, entry, tools)) {
        case ReadResult::kDigested:
          if (is_as_scanned(entry, surprise.stat)) return;
          surprise.kind = HashSurprise::Kind::kChanged;
          return report(surprise);
        case ReadResult::kFailed:
          surprise.kind = HashSurprise::Kind::kNoDigest;
          return report(surprise);
        case ReadResult::kStopped:
          return;
        case ReadResult::kChanged:
          break;
      }
    }
    surprise.kind = HashSurprise::Kind::kNoDigest;
    report(surprise);
  }

  // Reads all of the file; surprise.stat is what fstat said before. kChanged leaves what it says
  // after.
  ReadResult read_file(int fd, HashSurprise& surprise, uint32_t entry, Tools& tools) {
    const Validators before = fs::to_validators(surprise.stat);
    if (before.size_bytes >= kReadAheadBytes) {
      ::posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    }
    tools.xxh.reset();
    tools.sha.reset();
    tools.signer.begin(before.size_bytes);
    uint64_t done = 0;
    while (done < before.size_bytes) {
      if (is_stopped()) return ReadResult::kStopped;
      const size_t part = std::min<uint64_t>(tools.buffer.size(), before.size_bytes - done);
      const ssize_t size = ::read(fd, tools.buffer.data(), part);
      if (size < 0 && errno == EINTR) continue;
      if (size < 0) {
        surprise.sys_errno = errno;
        return ReadResult::kFailed;
      }
      if (size == 0) break;  // Shorter by now: the stat below says so.
      const ByteView bytes(tools.buffer.data(), static_cast<size_t>(size));
      tools.xxh.update(bytes);
      tools.sha.update(bytes);
      tools.signer.update(bytes);
      done += bytes.size();
      bytes_.fetch_add(bytes.size(), std::memory_order_relaxed);
    }
    if (::fstat(fd, &surprise.stat) != 0) {
      surprise.sys_errno = errno;
      return ReadResult::kFailed;
    }
    if (done != before.size_bytes || fs::to_validators(surprise.stat) != before) {
      return ReadResult::kChanged;
    }
    scan_.xxh[entry] = tools.xxh.digest();
    scan_.sha[entry] = tools.sha.finish();
    const uint64_t signature = tools.signer.finish(entry, scan_.sha[entry]);
    // One that is new the keeper has entered already, and other threads may be reading it.
    if (scan_.signatures[entry] != signature) scan_.signatures[entry] = signature;
    files_done_.fetch_add(1, std::memory_order_relaxed);
    journal_.append({.device = surprise.stat.st_dev,
                     .validators = before,
                     .xxh = scan_.xxh[entry],
                     .sha = scan_.sha[entry],
                     .pack = signature != 0 ? keeper_.pack() : 0,
                     .signature = signature});
    return ReadResult::kDigested;
  }

  // Leaves no trace in atime where that is allowed; one refusal is enough to stop asking.
  Result<UniqueFd> open_file(const RelPath& path) {
    OpenRequest request = fs::read_request(options_.root_fd, path);
    if (!no_atime_.load(std::memory_order_relaxed)) return fs::open(request);
    request.how.flags |= O_NOATIME;
    Result<UniqueFd> fd = fs::open(request);
    if (fd || fd.error().sys_errno != EPERM) return fd;
    request.how.flags &= ~static_cast<uint64_t>(O_NOATIME);
    fd = fs::open(request);
    if (fd) no_atime_.store(false, std::memory_order_relaxed);
    return fd;
  }

  bool is_as_scanned(uint32_t entry, const struct stat& stat) const {
    const tree::Record& record = table_.record(entry);
    const LocalStat& local = scan_.local[entry];
    Validators scanned;
    scanned.inode = local.inode;
    scanned.size_bytes = record.size_bytes;
    scanned.mtime_s = record.mtime_s;
    scanned.mtime_ns = record.mtime_ns;
    scanned.ctime_s = local.ctime_s;
    scanned.ctime_ns = local.ctime_ns;
    return local.device == stat.st_dev && scanned == fs::to_validators(stat);
  }

  void cannot_open(HashSurprise& surprise, const Error& error) {
    surprise.sys_errno = error.sys_errno;
    switch (error.sys_errno) {
      case EMFILE:
      case ENFILE:
      case ENOMEM:
      case ENOSYS:
        return fail_all(error);  // Ours, not the file's.
      case EACCES:
      case EPERM:
        surprise.kind = HashSurprise::Kind::kUnreadable;
        return report(surprise);
      default:
        break;
    }
    const bool gone = error.code == Errc::kNotFound || error.sys_errno == ENXIO;
    surprise.kind = gone ? HashSurprise::Kind::kGone : HashSurprise::Kind::kNoDigest;
    // Nothing newer is known of it than the scan has.
    surprise.stat.st_ino = 0;
    report(surprise);
  }

  void report(const HashSurprise& surprise) {
    const std::lock_guard lock(mutex_);
    outcome_.surprises.push_back(surprise);
  }

  void fail_all(const Error& error) {
    const std::lock_guard lock(mutex_);
    if (!fatal_) fatal_ = Error{error.code, error.sys_errno, "hash: " + error.message};
    failed_.store(true, std::memory_order_relaxed);
  }

  bool is_stopped() const {
    return options_.stop != nullptr && options_.stop->load(std::memory_order_relaxed);
  }

  HashCounts counts() const {
    return {.files = files_done_.load(std::memory_order_relaxed),
            .bytes = bytes_.load(std::memory_order_relaxed)};
  }

  const IndexOptions& options_;
  Scan& scan_;
  const tree::TableView table_;
  const std::span<const uint32_t> files_;
  Journal& journal_;
  SignatureKeeper& keeper_;

  // Relaxed, all of them: they hand out numbers, count, or ask for an end. Results are published by
  // the mutex and by the end of the threads.
  std::atomic<size_t> next_ = 0;
  std::atomic<uint64_t> files_done_ = 0;
  std::atomic<uint64_t> bytes_ = 0;
  std::atomic<bool> failed_ = false;
  std::atomic<bool> no_atime_ = true;

  std::mutex mutex_;  // Guards what follows.
  std::condition_variable ended_;
  size_t threads_running_ = 0;
  HashOutcome outcome_;
  std::optional<Error> fatal_;
};

}  // namespace

Result<HashOutcome> hash_files(const IndexOptions& options, Scan& scan,
                               std::span<const uint32_t> files, const HashSinks& sinks,
                               const std::function<void(HashCounts)>& progress) {
  return Hashing(options, scan, files, sinks).run(progress);
}

void order_for_hashing(const Scan& scan, std::vector<uint32_t>& files) {
  const tree::TableView table = scan.table.view();
  std::stable_partition(files.begin(), files.end(), [&](uint32_t entry) {
    return table.record(entry).size_bytes >= kLargeFileBytes;
  });
}

}  // namespace superlifter::catalog
