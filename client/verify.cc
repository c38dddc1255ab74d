#include "client/verify.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#include "client/placement.h"
#include "client/staging.h"
#include "core/base/escape.h"
#include "core/catalog/catalog.h"
#include "core/fs/beneath.h"

namespace superlifter::client {
namespace {

constexpr size_t kReadBytes = 1 << 20;
constexpr int kTickMs = 50;
constexpr uint32_t kEntriesAtOnce = 64;  // Taken by one thread at a time.

class Verifier {
 public:
  Verifier(const catalog::Catalog& state, int destination_fd, Progress& progress,
           const std::atomic<bool>& stop)
      : state_(state), destination_fd_(destination_fd), progress_(progress), stop_(stop) {}

  void run_thread() {
    const tree::TableView& table = state_.table();
    DirectoryCache directories(destination_fd_, table);
    std::vector<uint8_t> buffer(kReadBytes);
    while (!stop_) {
      const uint32_t first = next_.fetch_add(kEntriesAtOnce);
      if (first >= table.count()) return;
      const uint32_t end = std::min(first + kEntriesAtOnce, table.count());
      for (uint32_t entry = std::max(first, 1U); entry < end && !stop_; ++entry) {
        const std::string problem = check(entry, directories, buffer);
        if (problem.empty()) continue;
        ++problems_;
        progress_.note(escape(table.path(entry)) + ": " + problem);
      }
    }
  }

  VerifyResult result() const {
    return {.exit_code = problems_ == 0 ? ExitCode::kOk : ExitCode::kPartial,
            .files = files_,
            .bytes = bytes_,
            .problems = problems_,
            .without_digest = without_digest_};
  }

 private:
  // What is wrong with an entry; empty: nothing.
  std::string check(uint32_t entry, DirectoryCache& directories, std::vector<uint8_t>& buffer) {
    const tree::TableView& table = state_.table();
    const tree::Record& record = table.record(entry);
    // What the pull left out (a filter) or could not get has no local part. Everything else has
    // one, of whatever kind, and must be there.
    if (!state_.local()[entry].known()) return {};
    const Result<int> parent = directories.get(record.parent);
    if (!parent) return parent.error().message;
    const std::string name(table.name(entry));
    struct stat stat{};
    if (fstatat(*parent, name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0) {
      return errno == ENOENT ? "is missing" : std::string("stat: ") + std::strerror(errno);
    }
    if (record.is_directory()) return S_ISDIR(stat.st_mode) ? "" : "is not a directory any more";
    if (record.is_symlink()) return check_symlink(entry, *parent, name, stat);
    if (!S_ISREG(stat.st_mode)) return "is not a regular file any more";
    if (static_cast<uint64_t>(stat.st_size) != record.size_bytes) {
      return "has " + std::to_string(stat.st_size) + " bytes instead of " +
             std::to_string(record.size_bytes);
    }
    return check_content(entry, *parent, name, buffer);
  }

  std::string check_symlink(uint32_t entry, int parent, const std::string& name,
                            const struct stat& stat) const {
    if (!S_ISLNK(stat.st_mode)) return "is not a symlink any more";
    char target[kMaxSymlinkBytes + 1];
    const ssize_t size = readlinkat(parent, name.c_str(), target, sizeof(target));
    const bool same = size >= 0 && std::string_view(target, static_cast<size_t>(size)) ==
                                       state_.table().target(entry);
    return same ? "" : "points elsewhere";
  }

  std::string check_content(uint32_t entry, int parent, const std::string& name,
                            std::vector<uint8_t>& buffer) {
    const hash::Xxh128& expected = state_.xxh()[entry];
    if (!expected.known()) {
      ++without_digest_;
      return {};
    }
    const UniqueFd fd(openat(parent, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!fd.valid()) return std::string("open: ") + std::strerror(errno);
    hash::Xxh128Hasher hasher;
    uint64_t bytes = 0;
    while (!stop_) {
      const ssize_t count = read(fd.get(), buffer.data(), buffer.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return std::string("read: ") + std::strerror(errno);
      if (count == 0) break;
      hasher.update(ByteView(buffer).first(static_cast<size_t>(count)));
      bytes += static_cast<uint64_t>(count);
      progress_.add(static_cast<uint64_t>(count), 0);
    }
    if (stop_) return {};
    if (hasher.digest() != expected) return "its content is not what was pulled";
    ++files_;
    bytes_ += bytes;
    progress_.add(0, 1);
    return {};
  }

  const catalog::Catalog& state_;
  const int destination_fd_;
  Progress& progress_;
  const std::atomic<bool>& stop_;
  std::atomic<uint32_t> next_ = 0;
  std::atomic<uint64_t> files_ = 0;
  std::atomic<uint64_t> bytes_ = 0;
  std::atomic<uint64_t> problems_ = 0;
  std::atomic<uint64_t> without_digest_ = 0;
};

}  // namespace

VerifyResult verify(const VerifyOptions& options, Progress& progress,
                    const std::atomic<bool>& stop) {
  VerifyResult failed;
  failed.exit_code = ExitCode::kFileIo;
  const Result<UniqueFd> destination = fs::open_root(options.destination);
  if (!destination) {
    progress.note(destination.error().message);
    return failed;
  }
  const Result<UniqueFd> directory =
      fs::open_directory_at(destination->get(), std::string(kStateDirectory));
  Result<std::shared_ptr<const catalog::Catalog>> state = fail(Errc::kNotFound, "");
  if (directory)
    state = catalog::Catalog::open(directory->get(), kStateFile, catalog::Verify::kEverything);
  if (!state) {
    const bool none = state.error().code == Errc::kNotFound;
    progress.note("'" + escape(options.destination) + "': " +
                  (none ? "holds no state of a pull (.superlifter/state.generation): pull it first"
                        : state.error().message));
    return failed;
  }
  const tree::Totals totals = (*state)->table().totals();
  progress.start(ProgressPhase::kVerifying, {.bytes = totals.bytes, .files = totals.files});
  Verifier verifier(**state, destination->get(), progress, stop);
  std::vector<std::thread> threads;
  const unsigned count =
      options.jobs > 0 ? options.jobs : std::max(1U, std::thread::hardware_concurrency());
  threads.reserve(count);
  std::atomic<unsigned> running = count;
  for (unsigned i = 0; i < count; ++i) {
    threads.emplace_back([&] {
      verifier.run_thread();
      --running;
    });
  }
  while (running > 0) {
    poll(nullptr, 0, kTickMs);
    progress.tick();
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  VerifyResult result = verifier.result();
  if (stop) result.exit_code = ExitCode::kInterrupted;
  return result;
}

}  // namespace superlifter::client
