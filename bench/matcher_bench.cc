// How fast are the parts of a delta, per core and with two threads?
//
//   agree      basis and target mostly agree: an edit every 256 KiB      goal: 1 GB/s per core
//   disagree   they have nothing in common: one level is rolled over     goal: 300 MB/s per core
//   threads    the same with two threads                                 goal: 1.7 times one
//   signature  making one beside the digests, as the indexer does        goal: 25 % on top
//
// All bytes are in memory, so no disk decides. Figures are bytes of the basis (of the file, for
// signatures) by wall time. Take the best of several repetitions: what else the machine does can
// only make them worse.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/delta/matcher.h"
#include "core/delta/refiner.h"
#include "core/delta/signature.h"
#include "core/hash/digest.h"

namespace superlifter {
namespace {

constexpr uint64_t kFileBytes = 256 * kMiB;
constexpr uint64_t kPartBytes = 8 * kMiB;  // As refiner.cc cuts a search.
constexpr size_t kReadBytes = 256 * kKiB;
constexpr uint64_t kBytesBetweenEdits = 256 * kKiB;

Bytes noise(uint64_t seed, uint64_t size_bytes) {
  std::mt19937_64 random(seed);
  Bytes bytes(size_bytes);
  for (size_t at = 0; at + 8 <= bytes.size(); at += 8) {
    const uint64_t word = random();
    std::memcpy(bytes.data() + at, &word, sizeof word);
  }
  return bytes;
}

const Bytes& basis() {
  static const Bytes kBasis = noise(1, kFileBytes);
  return kBasis;
}

// The basis with small insertions, deletions and replacements in turn.
const Bytes& edited_target() {
  static const Bytes kTarget = [] {
    Bytes out;
    out.reserve(kFileBytes + kMiB);
    std::mt19937_64 random(2);
    const ByteView from(basis());
    for (uint64_t at = 0, edit = 0; at < from.size(); at += kBytesBetweenEdits, ++edit) {
      const ByteView piece = from.subspan(at, kBytesBetweenEdits);
      const size_t place = random() % (piece.size() - 64);
      const uint64_t dropped = edit % 3 == 0 ? 0 : 1 + random() % 32;
      const uint64_t added = edit % 3 == 1 ? 0 : 1 + random() % 32;
      const auto here = piece.begin() + static_cast<ptrdiff_t>(place);
      out.insert(out.end(), piece.begin(), here);
      for (uint64_t i = 0; i < added; ++i)
        out.push_back(static_cast<uint8_t>(random()));
      out.insert(out.end(), here + static_cast<ptrdiff_t>(dropped), piece.end());
    }
    return out;
  }();
  return kTarget;
}

const Bytes& other_target() {
  static const Bytes kTarget = noise(3, kFileBytes);
  return kTarget;
}

bool read_basis(uint64_t offset, MutableBytes into) {
  const ByteView from = ByteView(basis()).subspan(offset, into.size());
  std::copy(from.begin(), from.end(), into.begin());
  return true;
}

delta::ParallelFor on_threads(size_t threads) {
  return [threads](size_t count, const std::function<void(size_t)>& work) {
    std::atomic<size_t> next = 0;
    const auto run = [&] {
      for (size_t i = next++; i < count; i = next++)
        work(i);
    };
    std::vector<std::jthread> others;
    for (size_t i = 1; i < std::min(threads, count); ++i)
      others.emplace_back(run);
    run();
  };
}

Bytes sums_for(const Bytes& target, const delta::Refiner::Ask& ask) {
  Bytes sums;
  for (const delta::BlockRun& run : ask.runs) {
    const uint64_t begin = run.first << ask.level;
    const uint64_t end = std::min<uint64_t>(run.end() << ask.level, target.size());
    delta::append_sums(ByteView(target).subspan(begin, end - begin), ask.level, ask.width, sums);
  }
  return sums;
}

// A whole delta, level by level; the server's part of it is not timed.
void refine(benchmark::State& state) {
  const Bytes& target = edited_target();
  const delta::ParallelFor parallel = on_threads(static_cast<size_t>(state.range(0)));
  uint64_t literal_bytes = 0;
  for (auto _ : state) {
    delta::Refiner refiner({.target_bytes = target.size(), .basis_bytes = basis().size()});
    while (refiner.ask()) {
      state.PauseTiming();
      const Bytes sums = sums_for(target, *refiner.ask());
      state.ResumeTiming();
      CHECK(refiner.answer(sums, read_basis, parallel).has_value());
    }
    literal_bytes = target.size() - refiner.plan().copied_bytes();
  }
  CHECK(literal_bytes < target.size() / 100);
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * basis().size()));
  state.counters["literal_kB"] = static_cast<double>(literal_bytes) / 1e3;
}
BENCHMARK(refine)
    ->Name("agree/threads")
    ->Arg(1)
    ->Arg(2)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

delta::BlockTable table_of(const Bytes& target, unsigned level, unsigned width) {
  delta::BlockTable table(level, width);
  Bytes sums;
  delta::append_sums(target, level, width, sums);
  uint64_t block = 0;
  for (const delta::BlockSum& sum : delta::parse_sums(sums, width))
    table.add(block++, sum);
  table.seal();
  return table;
}

// One level rolls over all of the basis and finds nothing.
void roll(benchmark::State& state) {
  const auto level = static_cast<unsigned>(state.range(0));
  const delta::ParallelFor parallel = on_threads(static_cast<size_t>(state.range(1)));
  const delta::BlockTable table = table_of(other_target(), level, delta::kMostWidth);
  for (auto _ : state) {
    std::vector<std::vector<delta::Match>> found(kFileBytes / kPartBytes);
    parallel(found.size(), [&](size_t part) {
      delta::search(table, read_basis, basis().size(), {part * kPartBytes, kPartBytes},
                    found[part]);
    });
    for (const std::vector<delta::Match>& part : found)
      CHECK(part.empty());
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * basis().size()));
}
BENCHMARK(roll)
    ->Name("disagree/level/threads")
    ->ArgsProduct({{10, 14, 16}, {1, 2}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

enum class Signature { kNone, kMade };

void index(benchmark::State& state, Signature signature) {
  hash::Sha256Hasher sha256;
  hash::Xxh128Hasher xxh128;
  delta::SignatureBuilder builder;
  uint64_t sums = 0;
  for (auto _ : state) {
    sha256.reset();
    xxh128.reset();
    const delta::SignatureLayout layout(basis().size(), delta::kLeafLevel);
    if (signature == Signature::kMade) {
      builder.begin(layout, [&](unsigned, uint64_t, std::span<const delta::BlockSum> run) {
        sums += run.size();
        return Status{};
      });
    }
    for (size_t at = 0; at < basis().size(); at += kReadBytes) {
      const ByteView bytes = ByteView(basis()).subspan(at, kReadBytes);
      sha256.update(bytes);
      xxh128.update(bytes);
      if (signature == Signature::kMade) CHECK(builder.update(bytes).has_value());
    }
    if (signature == Signature::kMade) CHECK(builder.finish().has_value());
    benchmark::DoNotOptimize(sha256.finish());
    benchmark::DoNotOptimize(xxh128.digest());
  }
  benchmark::DoNotOptimize(sums);
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * basis().size()));
}
BENCHMARK_CAPTURE(index, digests, Signature::kNone)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(index, digests_and_signature, Signature::kMade)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace superlifter

BENCHMARK_MAIN();
