// Patches: files rebuilt from a basis and literals, aside and in place, and what is done when the
// basis, the literals or the plan are not what they should be.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "core/delta/in_place.h"
#include "tests/client/applier_bench.h"
#include "tests/support/as_nobody.h"

namespace superlifter::client {
namespace {

using delta::Copy;
using delta::Plan;
using delta::Range;
using tests::TargetTree;
using tests::TempTree;
using Kind = Applier::Outcome::Kind;

std::string noise(size_t size_bytes, unsigned seed) {
  std::mt19937_64 random(seed);
  std::string out(size_bytes, '\0');
  for (char& byte : out) {
    byte = static_cast<char>(random());
  }
  return out;
}

// A basis, a plan, and the target that they make with literals of noise.
struct Pair {
  std::string basis;
  std::string target;
  Plan plan;
};

Pair make_pair(std::string basis, Plan plan) {
  Pair out{.basis = std::move(basis), .target = noise(plan.target_bytes, 99), .plan = {}};
  for (const Copy& copy : plan.copies) {
    out.target.replace(copy.target_offset, copy.length_bytes, out.basis, copy.basis_offset,
                       copy.length_bytes);
  }
  out.plan = std::move(plan);
  return out;
}

// Something of everything: unaligned, moved back, repeated, literals in front and at the end.
Pair small_pair() {
  return make_pair(noise(20'000, 1), {.target_bytes = 25'000,
                                      .copies = {{100, 0, 5'000},
                                                 {5'100, 8'001, 3'000},
                                                 {8'100, 0, 10},
                                                 {9'000, 100, 1},
                                                 {9'001, 4'999, 15'001}}});
}

// Copied and hashed by copiers, ahead of the literals.
Pair large_pair(uint64_t shift) {
  constexpr uint64_t kPart = 3 << 20;
  Plan plan;
  for (uint64_t i = 0; i < 4; ++i) {
    plan.copies.push_back({shift + i * (kPart + 500), i * kPart, kPart});
  }
  plan.target_bytes = plan.copies.back().target_end() + 777;
  return make_pair(noise(4 * kPart, 2), std::move(plan));
}

// A directory d with a file f that is to become the target, and the basis in its place.
class Patching {
 public:
  explicit Patching(Pair pair, uint16_t mode = 0640)
      : pair_(std::move(pair)), one_(pair_.target, mode), bench(one_.tree) {
    bench.dest.write("d/f", pair_.basis);
  }

  Applier::Job job() {
    Applier::Job out;
    out.entry = one_.file;
    out.digest = one_.tree.digest(one_.file);
    out.stage_name = bench.staging->new_patch_name();
    out.plan = std::make_shared<const Plan>(pair_.plan);
    out.basis = "d/f";
    return out;
  }
  Applier::Job in_place_job() {
    Applier::Job out = job();
    out.in_place = true;
    out.in_place_plan =
        std::make_shared<const delta::InPlacePlan>(delta::order_in_place(*out.plan));
    out.plan = std::shared_ptr<const Plan>(out.in_place_plan, &out.in_place_plan->plan);
    return out;
  }
  Applier::Job whole_job() {
    Applier::Job out = bench.job(one_.file);
    out.in_place = true;
    return out;
  }
  // Sends the plan's literals, in pieces, in the order given by `ranges`.
  uint32_t send(Applier::Job what, const std::vector<Range>& ranges, size_t step = 1 << 18) {
    const uint32_t number = bench.applier->begin(std::move(what));
    for (const Range& range : ranges) {
      for (uint64_t at = range.offset; at < range.end(); at += step) {
        const size_t part = std::min<uint64_t>(step, range.end() - at);
        auto slab = std::make_shared<Slab>();
        const ByteView content = as_bytes(pair_.target).subspan(at, part);
        slab->bytes.assign(content.begin(), content.end());
        const ByteView bytes(slab->bytes);
        const bool ends = &range == &ranges.back() && at + part == range.end();
        bench.applier->write(number, std::move(slab), bytes, at, ends);
      }
      bench.applier->flush();
    }
    return number;
  }
  Applier::Outcome patch(Applier::Job what, size_t step = 1 << 18) {
    const std::vector<Range> literals = what.plan->literals();
    const uint32_t number = send(std::move(what), literals, step);
    bench.applier->decide(number, wire::Code::kOk);
    return bench.outcome();
  }
  std::string file() const { return bench.dest.read("d/f"); }
  bool is_old() const { return file() == pair_.basis; }
  bool is_new() const { return file() == pair_.target; }

 private:
  Pair pair_;
  OneFile one_;

 public:
  ApplierBench bench;
};

void expect_patched(Patching& patching, const Applier::Outcome& outcome) {
  ASSERT_EQ(outcome.kind, Kind::kApplied) << outcome.error.message;
  EXPECT_TRUE(outcome.is_patch);
  EXPECT_GT(outcome.copied_bytes, 0U);
  EXPECT_TRUE(patching.is_new());
  EXPECT_TRUE(patching.bench.stage_is_empty());
  const struct stat stat = patching.bench.stat_of("d/f");
  EXPECT_EQ(stat.st_mode & 07777U, 0640U);
  EXPECT_EQ(stat.st_mtim.tv_sec, TargetTree::kMtimeSeconds);
  EXPECT_EQ(stat.st_mtim.tv_nsec, TargetTree::kMtimeNanoseconds);
  EXPECT_EQ(outcome.local.inode, stat.st_ino);
}

TEST(Patch, SmallAndLargeOnesGiveTheTarget) {
  for (const Pair& pair : {small_pair(), large_pair(0), large_pair(1), large_pair(4096)}) {
    for (const size_t step : {size_t{333}, size_t{1} << 20}) {
      Patching patching(pair);
      expect_patched(patching, patching.patch(patching.job(), step));
    }
  }
}

TEST(Patch, TheOldFileIsReplacedNotChanged) {
  Patching patching(small_pair());
  const UniqueFd old(open(patching.bench.dest.path("d/f").c_str(), O_RDONLY | O_CLOEXEC));
  expect_patched(patching, patching.patch(patching.job()));
  struct stat stat{};
  ASSERT_EQ(fstat(old.get(), &stat), 0);
  EXPECT_EQ(stat.st_nlink, 0U);
  EXPECT_EQ(stat.st_size, 20'000);
}

TEST(Patch, LiteralsInAnyOrderGiveTheTarget) {
  for (const Pair& pair : {small_pair(), large_pair(1)}) {
    Patching patching(pair);
    std::vector<Range> literals = pair.plan.literals();
    std::reverse(literals.begin(), literals.end());
    const uint32_t number = patching.send(patching.job(), literals);
    patching.bench.applier->decide(number, wire::Code::kOk);
    expect_patched(patching, patching.bench.outcome());
  }
}

TEST(Patch, BasisOfAnotherNameStays) {
  Patching patching(small_pair());
  patching.bench.dest.write("d/other", patching.file());
  patching.bench.dest.write("d/f", "something else");
  Applier::Job job = patching.job();
  job.basis = "d/other";
  expect_patched(patching, patching.patch(std::move(job)));
  EXPECT_EQ(patching.bench.dest.read("d/other").size(), 20'000U);
}

TEST(Patch, WithoutLiteralsNeedsNoNetwork) {
  for (const uint64_t size_bytes : {uint64_t{10'000}, uint64_t{9} << 20}) {
    Patching patching(make_pair(
        noise(size_bytes, 3),
        {.target_bytes = size_bytes,
         .copies = {{0, size_bytes / 2, size_bytes / 2}, {size_bytes / 2, 0, size_bytes / 2}}}));
    patching.bench.applier->run_local(patching.job());
    const Applier::Outcome outcome = patching.bench.outcome();
    EXPECT_TRUE(outcome.from_local);
    expect_patched(patching, outcome);
  }
}

TEST(Patch, ABasisThatIsNotWhatItWasIsAMismatch) {
  for (const Pair& pair : {small_pair(), large_pair(0)}) {
    const auto attempt = [&](auto change) {
      Patching patching(pair);
      change(patching.bench.dest);
      const Applier::Outcome outcome = patching.patch(patching.job());
      EXPECT_EQ(outcome.kind, Kind::kMismatch);
      EXPECT_TRUE(outcome.is_patch);
      EXPECT_TRUE(patching.bench.stage_is_empty());
    };
    attempt([](TempTree& dest) { std::filesystem::remove(dest.path("d/f")); });
    attempt([](TempTree& dest) { std::filesystem::resize_file(dest.path("d/f"), 19'999); });
    attempt([&](TempTree& dest) { dest.write("d/f", noise(pair.basis.size(), 77)); });
    attempt([](TempTree& dest) {
      std::filesystem::remove(dest.path("d/f"));
      dest.make_directory("d/f");
    });
    attempt([](TempTree& dest) {
      std::filesystem::rename(dest.path("d/f"), dest.path("g"));
      std::filesystem::create_symlink("../g", dest.path("d/f"));
    });
  }
}

// The large one is open by then and its copies may be done; either way it is right or a mismatch.
TEST(Patch, ABasisThatVanishesInMidPatchDoesNoHarm) {
  for (const Pair& pair : {small_pair(), large_pair(0)}) {
    Patching patching(pair);
    std::vector<Range> literals = pair.plan.literals();
    const uint32_t number = patching.send(patching.job(), literals);
    std::filesystem::remove(patching.bench.dest.path("d/f"));
    patching.bench.applier->decide(number, wire::Code::kOk);
    const Applier::Outcome outcome = patching.bench.outcome();
    if (outcome.kind == Kind::kApplied) {
      EXPECT_TRUE(patching.is_new());
    } else {
      EXPECT_EQ(outcome.kind, Kind::kMismatch);
    }
    EXPECT_TRUE(patching.bench.stage_is_empty());
  }
}

TEST(Patch, AWrongDigestIsAMismatchAndTheOldFileStays) {
  for (const Pair& pair : {small_pair(), large_pair(1)}) {
    Patching patching(pair);
    Applier::Job job = patching.job();
    job.digest = hash::xxh128(as_bytes("something else"));
    EXPECT_EQ(patching.patch(std::move(job)).kind, Kind::kMismatch);
    EXPECT_TRUE(patching.is_old());
    EXPECT_TRUE(patching.bench.stage_is_empty());
  }
}

TEST(Patch, MissingLiteralsAreAMismatch) {
  Patching patching(small_pair());
  std::vector<Range> literals = small_pair().plan.literals();
  literals.erase(literals.begin());
  const uint32_t number = patching.send(patching.job(), literals);
  patching.bench.applier->decide(number, wire::Code::kOk);
  EXPECT_EQ(patching.bench.outcome().kind, Kind::kMismatch);
  EXPECT_TRUE(patching.is_old());
  EXPECT_TRUE(patching.bench.stage_is_empty());
}

TEST(Patch, LiteralsBeyondTheEndFail) {
  for (const uint64_t offset : {uint64_t{24'999}, uint64_t{25'000}, UINT64_MAX}) {
    Patching patching(small_pair());
    const uint32_t number = patching.bench.applier->begin(patching.job());
    auto slab = std::make_shared<Slab>();
    slab->bytes = {'a', 'b'};
    const ByteView bytes(slab->bytes);
    patching.bench.applier->write(number, std::move(slab), bytes, offset, true);
    patching.bench.applier->decide(number, wire::Code::kOk);
    const Applier::Outcome outcome = patching.bench.outcome();
    EXPECT_EQ(outcome.kind, Kind::kFailed);
    EXPECT_NE(outcome.error.message.find("d/f"), std::string::npos);
    EXPECT_TRUE(patching.is_old());
    EXPECT_TRUE(patching.bench.stage_is_empty());
  }
}

TEST(Patch, StaleAtTheSourceThrowsTheStagedFileAway) {
  for (const Pair& pair : {small_pair(), large_pair(0)}) {
    for (const bool in_place : {false, true}) {
      Patching patching(pair);
      Applier::Job job = in_place ? patching.in_place_job() : patching.job();
      const std::vector<Range> literals = job.plan->literals();
      const uint32_t number = patching.send(std::move(job), {literals.front()});
      patching.bench.applier->decide(number, wire::Code::kStale);
      EXPECT_EQ(patching.bench.outcome().kind, Kind::kStale);
      EXPECT_TRUE(patching.is_old());
      EXPECT_TRUE(patching.bench.stage_is_empty());
    }
  }
}

TEST(Patch, AnInterruptedOneIsNoLeftoverForTheNextRun) {
  Patching patching(large_pair(0));
  const std::vector<Range> literals = large_pair(0).plan.literals();
  static_cast<void>(patching.send(patching.job(), {literals.front()}));
  patching.bench.restart();
  EXPECT_TRUE(patching.bench.stage_is_empty());
  EXPECT_TRUE(patching.is_old());
  expect_patched(patching, patching.patch(patching.job()));
}

TEST(Patch, ManyAtOnceAllEnd) {
  TargetTree tree;
  std::vector<uint32_t> files;
  const Pair pair = large_pair(3);
  for (int i = 10; i < 60; ++i) {
    files.push_back(tree.file(tree::kRoot, std::to_string(i), pair.target));
  }
  tree.finish();
  ApplierBench bench(tree);
  bench.dest.write("basis", pair.basis);
  const auto plan = std::make_shared<const Plan>(pair.plan);
  const auto content = std::make_shared<Slab>();
  content->bytes.assign(pair.target.begin(), pair.target.end());
  for (const uint32_t file : files) {
    Applier::Job job = bench.job(file);
    job.stage_name = bench.staging->new_patch_name();
    job.plan = plan;
    job.basis = "basis";
    const uint32_t number = bench.applier->begin(std::move(job));
    const std::vector<Range> literals = plan->literals();
    for (const Range& range : literals) {
      bench.applier->write(number, content,
                           ByteView(content->bytes).subspan(range.offset, range.length_bytes),
                           range.offset, range == literals.back());
    }
    bench.applier->decide(number, wire::Code::kOk);
  }
  for (const Applier::Outcome& outcome : bench.outcomes(files.size())) {
    EXPECT_EQ(outcome.kind, Kind::kApplied) << outcome.error.message;
    EXPECT_EQ(bench.dest.read(tree.view().path(outcome.entry)), pair.target);
  }
  EXPECT_TRUE(bench.stage_is_empty());
}

// EFBIG stands for ENOSPC here: the nearest thing to a full disk that any user can have.
TEST(Patch, ADestinationThatCannotBeWrittenFailsTheFile) {
  for (const bool in_place : {false, true}) {
    EXPECT_TRUE(tests::as_nobody([&] {
      signal(SIGXFSZ, SIG_IGN);
      Patching patching(large_pair(0));
      const rlimit limit{.rlim_cur = 10 << 20, .rlim_max = 10 << 20};
      if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return false;
      const Applier::Outcome outcome =
          patching.patch(in_place ? patching.in_place_job() : patching.job());
      return outcome.kind == Kind::kFailed && outcome.error.sys_errno == EFBIG &&
             patching.bench.stage_is_empty() && (in_place || patching.is_old());
    }));
  }
}

TEST(PatchInPlace, TheFileItselfBecomesTheTarget) {
  for (const Pair& pair : {small_pair(), large_pair(0), large_pair(1)}) {
    Patching patching(pair);
    const ino_t inode = patching.bench.stat_of("d/f").st_ino;
    expect_patched(patching, patching.patch(patching.in_place_job()));
    EXPECT_EQ(patching.bench.stat_of("d/f").st_ino, inode);
  }
}

TEST(PatchInPlace, AFileThatShrinksIsCut) {
  Patching patching(
      make_pair(noise(20'000, 4),
                {.target_bytes = 7'000, .copies = {{0, 13'000, 3'000}, {3'500, 1'000, 3'000}}}));
  expect_patched(patching, patching.patch(patching.in_place_job()));
}

TEST(PatchInPlace, WithoutLiteralsNeedsNoNetwork) {
  Patching patching(
      make_pair(noise(9 << 20, 5), {.target_bytes = 8 << 20, .copies = {{0, 1 << 20, 8 << 20}}}));
  patching.bench.applier->run_local(patching.in_place_job());
  expect_patched(patching, patching.bench.outcome());
}

TEST(PatchInPlace, HalvesThatChangePlacesNeedNoNetwork) {
  for (const uint64_t half : {uint64_t{5'000}, uint64_t{5} << 20}) {
    Patching patching(
        make_pair(noise(2 * half, 8),
                  {.target_bytes = 2 * half, .copies = {{0, half, half}, {half, 0, half}}}));
    const ino_t inode = patching.bench.stat_of("d/f").st_ino;
    patching.bench.applier->run_local(patching.in_place_job());
    expect_patched(patching, patching.bench.outcome());
    EXPECT_EQ(patching.bench.stat_of("d/f").st_ino, inode);
  }
}

TEST(PatchInPlace, UntouchedUntilAllLiteralsAreThere) {
  Patching patching(small_pair());
  Applier::Job job = patching.in_place_job();
  std::vector<Range> literals = job.plan->literals();
  literals.pop_back();
  const struct stat before = patching.bench.stat_of("d/f");
  const uint32_t number = patching.send(std::move(job), literals);
  patching.bench.applier->decide(number, wire::Code::kIo);
  EXPECT_EQ(patching.bench.outcome().kind, Kind::kFailed);
  EXPECT_TRUE(patching.is_old());
  EXPECT_EQ(patching.bench.stat_of("d/f").st_mtim.tv_nsec, before.st_mtim.tv_nsec);
}

TEST(PatchInPlace, OneThatDoesNotVerifyNeverLooksRight) {
  Patching patching(small_pair());
  Applier::Job job = patching.in_place_job();
  job.digest = hash::xxh128(as_bytes("something else"));
  EXPECT_EQ(patching.patch(std::move(job)).kind, Kind::kMismatch);
  const struct stat stat = patching.bench.stat_of("d/f");
  EXPECT_NE(stat.st_mtim.tv_sec, TargetTree::kMtimeSeconds);
  EXPECT_TRUE(patching.bench.stage_is_empty());
  // The whole content, over what is there.
  patching.bench.feed(patching.whole_job(), small_pair().target, 1000);
  const Applier::Outcome outcome = patching.bench.outcome();
  EXPECT_EQ(outcome.kind, Kind::kApplied);
  EXPECT_TRUE(patching.is_new());
  EXPECT_EQ(patching.bench.stat_of("d/f").st_ino, stat.st_ino);
  EXPECT_EQ(patching.bench.stat_of("d/f").st_mtim.tv_sec, TargetTree::kMtimeSeconds);
}

TEST(PatchInPlace, ABasisThatIsTooShortIsAMismatchAndUntouched) {
  Patching patching(small_pair());
  std::filesystem::resize_file(patching.bench.dest.path("d/f"), 19'999);
  const struct stat before = patching.bench.stat_of("d/f");
  EXPECT_EQ(patching.patch(patching.in_place_job()).kind, Kind::kMismatch);
  const struct stat after = patching.bench.stat_of("d/f");
  EXPECT_EQ(after.st_mtim.tv_sec, before.st_mtim.tv_sec);
  EXPECT_EQ(after.st_size, 19'999);
}

TEST(PatchInPlace, AFileWithOtherNamesIsBuiltAside) {
  for (const bool whole : {false, true}) {
    Patching patching(small_pair());
    ASSERT_EQ(
        link(patching.bench.dest.path("d/f").c_str(), patching.bench.dest.path("other").c_str()),
        0);
    if (whole) {
      patching.bench.feed(patching.whole_job(), small_pair().target, 1000);
      EXPECT_EQ(patching.bench.outcome().kind, Kind::kApplied);
    } else {
      expect_patched(patching, patching.patch(patching.in_place_job()));
    }
    EXPECT_TRUE(patching.is_new());
    EXPECT_EQ(patching.bench.dest.read("other"), small_pair().basis);
  }
}

TEST(PatchInPlace, AMissingFileIsBuiltAside) {
  Patching patching(small_pair());
  ASSERT_EQ(unlink(patching.bench.dest.path("d/f").c_str()), 0);
  patching.bench.feed(patching.whole_job(), small_pair().target, 100'000);
  EXPECT_EQ(patching.bench.outcome().kind, Kind::kApplied);
  EXPECT_TRUE(patching.is_new());
  EXPECT_TRUE(patching.bench.stage_is_empty());
}

TEST(PatchInPlace, AReadOnlyFileOfOursCanBeChanged) {
  EXPECT_TRUE(tests::as_nobody([&] {
    Patching patching(small_pair(), 0444);
    const std::string path = patching.bench.dest.path("d/f");
    if (chmod(path.c_str(), 0444) != 0) return false;
    const ino_t inode = patching.bench.stat_of("d/f").st_ino;
    const Applier::Outcome outcome = patching.patch(patching.in_place_job());
    const struct stat stat = patching.bench.stat_of("d/f");
    return outcome.kind == Kind::kApplied && patching.is_new() && stat.st_ino == inode &&
           (stat.st_mode & 07777U) == 0444;
  }));
}

TEST(PatchInPlace, AWholeFileIsCutToItsLength) {
  Patching patching(make_pair(noise(20'000, 6), {.target_bytes = 50, .copies = {}}));
  const ino_t inode = patching.bench.stat_of("d/f").st_ino;
  const std::string target = make_pair("", {.target_bytes = 50, .copies = {}}).target;
  for (const size_t step : {size_t{7}, size_t{50}}) {
    patching.bench.dest.write("d/f", noise(20'000, 6));
    patching.bench.feed(patching.whole_job(), target, step);
    const Applier::Outcome outcome = patching.bench.outcome();
    EXPECT_EQ(outcome.kind, Kind::kApplied);
    EXPECT_FALSE(outcome.is_patch);
    EXPECT_TRUE(patching.is_new());
    EXPECT_EQ(patching.bench.stat_of("d/f").st_ino, inode);
    EXPECT_EQ(patching.bench.stat_of("d/f").st_mode & 07777U, 0640U);
  }
}

}  // namespace
}  // namespace superlifter::client
