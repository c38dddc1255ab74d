// What does a delta cost, without server or wire? For two files, or each file that two trees have
// in common and that differs, how many bytes of sums and literals an update takes, level by level,
// and how fast the matching is. The figures behind block_length.h and refiner.cc come from here.
//
//   delta_model [--finest LEVEL] [--first-kept LEVEL] [--threads N] OLD NEW

#include <fcntl.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "core/base/unique_fd.h"
#include "core/delta/refiner.h"

namespace superlifter {
namespace {

struct Settings {
  unsigned finest_level = 8;
  unsigned finest_kept_level = 10;
  unsigned threads = 2;
};

struct LevelCost {
  uint64_t blocks = 0;
  uint64_t sum_bytes = 0;
  uint64_t found_bytes = 0;
  double seconds = 0;
};

struct Cost {
  uint64_t files = 0;
  uint64_t mismatched = 0;
  uint64_t target_bytes = 0;
  std::map<unsigned, LevelCost, std::greater<>> levels;
  uint64_t literal_ranges = 0;
  Bytes literals;
};

class File {
 public:
  explicit File(const std::string& path) : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (!fd_.valid()) {
      std::fprintf(stderr, "delta_model: open %s: %s\n", path.c_str(), std::strerror(errno));
      std::exit(1);
    }
    size_ = static_cast<uint64_t>(lseek(fd_.get(), 0, SEEK_END));
  }
  uint64_t size() const { return size_; }
  bool read(uint64_t offset, MutableBytes into) const {
    while (!into.empty()) {
      const ssize_t count = pread(fd_.get(), into.data(), into.size(), static_cast<off_t>(offset));
      if (count <= 0) return false;
      into = into.subspan(static_cast<size_t>(count));
      offset += static_cast<uint64_t>(count);
    }
    return true;
  }

 private:
  UniqueFd fd_;
  uint64_t size_ = 0;
};

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void update(const File& basis, const File& target, const Settings& settings, Cost& cost) {
  const auto parallel = [&](size_t count, const std::function<void(size_t)>& work) {
    std::atomic<size_t> next = 0;
    const auto run = [&] {
      for (size_t i = next++; i < count; i = next++)
        work(i);
    };
    std::vector<std::jthread> threads;
    for (size_t i = 1; i < std::min<size_t>(settings.threads, count); ++i)
      threads.emplace_back(run);
    run();
  };
  const auto read = [&](uint64_t offset, MutableBytes into) { return basis.read(offset, into); };
  delta::Refiner refiner({.target_bytes = target.size(),
                          .basis_bytes = basis.size(),
                          .finest_kept_level = settings.finest_kept_level,
                          .finest_level = settings.finest_level});
  ++cost.files;
  cost.target_bytes += target.size();
  while (refiner.ask()) {
    const delta::Refiner::Ask& ask = *refiner.ask();
    LevelCost& level = cost.levels[ask.level];
    Bytes sums;
    Bytes block;
    for (const delta::BlockRun& run : ask.runs) {
      for (uint64_t i = run.first; i < run.end(); ++i) {
        const uint64_t offset = i << ask.level;
        block.resize(std::min(delta::block_length_bytes(ask.level), target.size() - offset));
        if (!target.read(offset, block)) std::abort();
        delta::append_sums(block, ask.level, ask.width, sums);
      }
    }
    level.blocks += ask.block_count();
    level.sum_bytes += sums.size();
    const uint64_t before = refiner.plan().copied_bytes();
    const double began = now_s();
    if (!refiner.answer(sums, read, parallel)) std::abort();
    level.seconds += now_s() - began;
    level.found_bytes += refiner.plan().copied_bytes() - before;
  }
  bool is_right = true;
  Bytes a;
  Bytes b;
  for (const delta::Copy& copy : refiner.plan().copies) {
    for (uint64_t done = 0; done < copy.length_bytes && is_right;) {
      const uint64_t part = std::min<uint64_t>(copy.length_bytes - done, 1 << 20);
      a.resize(part);
      b.resize(part);
      is_right = basis.read(copy.basis_offset + done, a) &&
                 target.read(copy.target_offset + done, b) && a == b;
      done += part;
    }
  }
  if (!is_right) ++cost.mismatched;
  for (const delta::Range& range : refiner.plan().literals()) {
    ++cost.literal_ranges;
    const size_t at = cost.literals.size();
    cost.literals.resize(at + range.length_bytes);
    if (!target.read(range.offset, MutableBytes(cost.literals).subspan(at))) std::abort();
  }
}

uint64_t packed(const Bytes& bytes, size_t frame_bytes, int level) {
  uint64_t sum = 0;
  for (size_t at = 0; at < bytes.size(); at += frame_bytes) {
    const size_t part = std::min(frame_bytes, bytes.size() - at);
    Bytes out(ZSTD_compressBound(part));
    const size_t size = ZSTD_compress(out.data(), out.size(), bytes.data() + at, part, level);
    if (ZSTD_isError(size) != 0) std::abort();
    sum += size;
  }
  return sum;
}

void print(const Cost& cost) {
  std::printf("%" PRIu64 " files, %.1f MB\n", cost.files,
              static_cast<double>(cost.target_bytes) / 1e6);
  uint64_t sums = 0;
  double seconds = 0;
  for (const auto& [level, at] : cost.levels) {
    std::printf("  level %2u: %9" PRIu64 " blocks asked, %9" PRIu64 " bytes of sums, %12" PRIu64
                " bytes found, %.3f s\n",
                level, at.blocks, at.sum_bytes, at.found_bytes, at.seconds);
    sums += at.sum_bytes;
    seconds += at.seconds;
  }
  std::printf("  literals: %" PRIu64 " ranges, %zu bytes; packed", cost.literal_ranges,
              cost.literals.size());
  uint64_t least = UINT64_MAX;
  for (const int level : {1, 3, 6}) {
    const double began = now_s();
    const uint64_t bytes = packed(cost.literals, 256 << 10, level);
    std::printf(" -%d: %" PRIu64 " (%.3f s)", level, bytes, now_s() - began);
    least = std::min(least, bytes);
  }
  std::printf("\n  sums %" PRIu64 ", with literals packed %" PRIu64
              "; matching %.3f s (%.2f GB/s); %" PRIu64 " wrong\n",
              sums, sums + least, seconds, static_cast<double>(cost.target_bytes) / seconds / 1e9,
              cost.mismatched);
}

bool is_equal(const File& a, const File& b) {
  if (a.size() != b.size()) return false;
  Bytes left(a.size());
  Bytes right(b.size());
  return a.read(0, left) && b.read(0, right) && left == right;
}

constexpr const char* kUsage =
    "usage: delta_model [--finest LEVEL] [--first-kept LEVEL] [--threads N] OLD NEW\n"
    "  levels are binary logarithms of block lengths: 6, 8, 10 … 28\n";

// The number behind an option. Ends the program when it is none.
unsigned number(const char* text) {
  char* end = nullptr;
  const unsigned long value = std::strtoul(text, &end, 10);
  if (end == text || *end != '\0' || value == 0 || value > 1000) {
    std::fprintf(stderr, "delta_model: %s: expected a number from 1 to 1000\n", text);
    std::exit(1);
  }
  return static_cast<unsigned>(value);
}

int run(int argc, char** argv) {
  Settings settings;
  std::vector<std::string> paths;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    unsigned* const value = word == "--finest"       ? &settings.finest_level
                            : word == "--first-kept" ? &settings.finest_kept_level
                            : word == "--threads"    ? &settings.threads
                                                     : nullptr;
    if (value != nullptr && i + 1 < argc) {
      *value = number(argv[++i]);
    } else {
      paths.push_back(word);
    }
  }
  const bool has_levels = delta::is_level(settings.finest_level) &&
                          delta::is_level(settings.finest_kept_level) &&
                          settings.finest_kept_level >= delta::kLeafLevel;
  if (paths.size() != 2 || !has_levels) {
    std::fputs(kUsage, stderr);
    return 1;
  }
  namespace fs = std::filesystem;
  Cost cost;
  if (!fs::is_directory(paths[1])) {
    update(File(paths[0]), File(paths[1]), settings, cost);
  } else {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(paths[1])) {
      const fs::path old = fs::path(paths[0]) / fs::relative(entry.path(), paths[1]);
      if (!entry.is_regular_file() || entry.is_symlink()) continue;
      if (!fs::is_regular_file(fs::symlink_status(old))) continue;
      const File basis(old);
      const File target(entry.path());
      if (!is_equal(basis, target)) update(basis, target, settings, cost);
    }
  }
  print(cost);
  return 0;
}

}  // namespace
}  // namespace superlifter

int main(int argc, char** argv) {
  return superlifter::run(argc, argv);
}
