// Files built in staging and put in place: whole, in pieces, resumed, wrong, stale, copied,
// checked.
#include "client/applier.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "tests/client/applier_bench.h"
#include "tests/support/as_nobody.h"
#include "tests/support/target_tree.h"
#include "tests/support/temp_tree.h"

namespace superlifter::client {
namespace {

using tests::TargetTree;
using tests::TempTree;
using tree::kRoot;
using wire::Code;
using Bench = ApplierBench;
using Kind = Applier::Outcome::Kind;

TEST(Applier, WholeFileGetsContentModeAndTime) {
  for (const uint16_t mode : {uint16_t{0640}, uint16_t{0444}, uint16_t{0}, uint16_t{06755}}) {
    OneFile one("content", mode);
    Bench bench(one.tree);
    bench.dest.make_directory("d");
    bench.feed(bench.job(one.file), "content", 100);
    const Applier::Outcome outcome = bench.outcome();
    ASSERT_EQ(outcome.kind, Kind::kApplied) << outcome.error.message;
    EXPECT_EQ(outcome.digest, one.tree.digest(one.file));
    EXPECT_FALSE(outcome.from_local);
    EXPECT_EQ(bench.dest.read("d/f"), "content");
    const struct stat stat = bench.stat_of("d/f");
    EXPECT_EQ(stat.st_mode & 07777U, mode & 01777U);
    EXPECT_EQ(stat.st_mtim.tv_sec, TargetTree::kMtimeSeconds);
    EXPECT_EQ(stat.st_mtim.tv_nsec, TargetTree::kMtimeNanoseconds);
    EXPECT_EQ(outcome.local.inode, stat.st_ino);
    EXPECT_TRUE(bench.stage_is_empty());
  }
}

TEST(Applier, PiecesOfAnySizeGiveTheSame) {
  OneFile one("some content that comes in pieces");
  for (const size_t step : {1U, 2U, 7U, 32U, 33U}) {
    Bench bench(one.tree);
    bench.dest.make_directory("d");
    bench.feed(bench.job(one.file), one.tree.content(one.file), step);
    EXPECT_EQ(bench.outcome().kind, Kind::kApplied);
    EXPECT_EQ(bench.dest.read("d/f"), one.tree.content(one.file));
  }
}

TEST(Applier, EmptyFileIsMade) {
  OneFile one("");
  Bench bench(one.tree);
  bench.dest.make_directory("d");
  bench.feed(bench.job(one.file), "", 1);
  EXPECT_EQ(bench.outcome().kind, Kind::kApplied);
  EXPECT_EQ(bench.dest.read("d/f"), "");
}

TEST(Applier, OldFileStaysUntilTheNewOneIsRight) {
  OneFile one("new content");
  Bench bench(one.tree);
  bench.dest.write("d/f", "old content");
  Applier::Job wrong = bench.job(one.file);
  bench.feed(std::move(wrong), "new c0ntent", 4);
  EXPECT_EQ(bench.outcome().kind, Kind::kMismatch);
  EXPECT_EQ(bench.dest.read("d/f"), "old content");
  EXPECT_TRUE(bench.stage_is_empty());
  bench.feed(bench.job(one.file), "new content", 4);
  EXPECT_EQ(bench.outcome().kind, Kind::kApplied);
  EXPECT_EQ(bench.dest.read("d/f"), "new content");
}

TEST(Applier, TooFewBytesAreAMismatch) {
  OneFile one("content");
  Bench bench(one.tree);
  bench.dest.make_directory("d");
  bench.feed(bench.job(one.file), "conten", 3);
  EXPECT_EQ(bench.outcome().kind, Kind::kMismatch);
  EXPECT_TRUE(bench.stage_is_empty());
}

TEST(Applier, TooManyBytesFailAndAreNotWritten) {
  OneFile one("content");
  Bench bench(one.tree);
  bench.dest.make_directory("d");
  bench.feed(bench.job(one.file), "content and more", 5);
  const Applier::Outcome outcome = bench.outcome();
  EXPECT_EQ(outcome.kind, Kind::kFailed);
  EXPECT_NE(outcome.error.message.find("d/f"), std::string::npos);
  EXPECT_FALSE(outcome.is_fatal);
  for (const auto& item :
       std::filesystem::directory_iterator(bench.dest.path(".superlifter/stage"))) {
    EXPECT_LE(item.file_size(), 7U);
  }
}

TEST(Applier, UnknownDigestIsRecorded) {
  OneFile one("content");
  Bench bench(one.tree);
  bench.dest.make_directory("d");
  Applier::Job job = bench.job(one.file);
  job.digest = {};
  bench.feed(std::move(job), "content", 3);
  const Applier::Outcome outcome = bench.outcome();
  EXPECT_EQ(outcome.kind, Kind::kApplied);
  EXPECT_EQ(outcome.digest, one.tree.digest(one.file));
}

TEST(Applier, StaleFileIsThrownAway) {
  OneFile one("content");
  Bench bench(one.tree);
  bench.dest.write("d/f", "old");
  bench.feed(bench.job(one.file), "content", 3, Code::kStale);
  const Applier::Outcome outcome = bench.outcome();
  EXPECT_EQ(outcome.kind, Kind::kStale);
  EXPECT_NE(outcome.error.message.find("d/f"), std::string::npos);
  EXPECT_EQ(bench.dest.read("d/f"), "old");
  EXPECT_TRUE(bench.stage_is_empty());
}

TEST(Applier, StaleBeforeTheFirstByteIsNoFile) {
  OneFile one("content");
  Bench bench(one.tree);
  bench.dest.make_directory("d");
  bench.applier->decide(bench.applier->begin(bench.job(one.file)), Code::kStale);
  EXPECT_EQ(bench.outcome().kind, Kind::kStale);
  EXPECT_TRUE(std::filesystem::is_empty(bench.dest.path("d")));
}

TEST(Applier, FileThatTheServerCannotReadIsNamedAndNotStale) {
  OneFile one("content");
  Bench bench(one.tree);
  bench.dest.make_directory("d");
  bench.applier->decide(bench.applier->begin(bench.job(one.file)), Code::kIo);
  const Applier::Outcome outcome = bench.outcome();
  EXPECT_EQ(outcome.kind, Kind::kFailed);
  EXPECT_FALSE(outcome.is_fatal);
  EXPECT_NE(outcome.error.message.find("d/f"), std::string::npos);
}

TEST(Applier, HalfAFileIsResumedByTheNextRun) {
  OneFile one("0123456789");
  Bench bench(one.tree);
  bench.dest.make_directory("d");
  {
    const uint32_t number = bench.applier->begin(bench.job(one.file));
    auto slab = std::make_shared<Slab>();
    slab->bytes = {'0', '1', '2', '3'};
    const ByteView bytes(slab->bytes);
    const std::weak_ptr<Slab> watched = slab;
    bench.applier->write(number, std::move(slab), bytes, 0, false);
    bench.applier->flush();
    while (!watched.expired()) {
      std::this_thread::yield();  // Until a writer has written it.
    }
  }
  bench.restart();
  const Staging::Leftover leftover = bench.staging->take_leftover(one.tree.digest(one.file), 10);
  ASSERT_EQ(leftover.size_bytes, 4U);
  Applier::Job job = bench.job(one.file);
  job.stage_name = leftover.name;
  job.staged_bytes = leftover.size_bytes;
  bench.feed(std::move(job), "456789", 4);
  EXPECT_EQ(bench.outcome().kind, Kind::kApplied);
  EXPECT_EQ(bench.dest.read("d/f"), "0123456789");
}

TEST(Applier, DamagedLeftoverIsAMismatchAndGone) {
  OneFile one("0123456789");
  Bench bench(one.tree);
  bench.dest.make_directory("d");
  Applier::Job job = bench.job(one.file);
  bench.dest.write(".superlifter/stage/" + job.stage_name, "0x23");
  job.staged_bytes = 4;
  bench.feed(std::move(job), "456789", 6);
  EXPECT_EQ(bench.outcome().kind, Kind::kMismatch);
  EXPECT_TRUE(bench.stage_is_empty());
}

TEST(Applier, WholeLeftoverNeedsNoNetwork) {
  OneFile one("0123456789");
  Bench bench(one.tree);
  bench.dest.make_directory("d");
  Applier::Job job = bench.job(one.file);
  // Longer than the file: what is beyond its end must not survive.
  bench.dest.write(".superlifter/stage/" + job.stage_name, "0123456789 and more");
  job.staged_bytes = 10;
  bench.applier->run_local(std::move(job));
  const Applier::Outcome outcome = bench.outcome();
  EXPECT_EQ(outcome.kind, Kind::kApplied);
  EXPECT_TRUE(outcome.from_local);
  EXPECT_EQ(bench.dest.read("d/f"), "0123456789");
}

TEST(Applier, LeftoverWithItsFinalModeCanBeResumedByItsOwner) {
  OneFile one("0123456789", 0444);
  TempTree dest;
  ASSERT_EQ(chmod(dest.path().c_str(), 0777), 0);
  EXPECT_TRUE(tests::as_nobody([&] {
    Bench bench(one.tree);
    bench.dest.make_directory("d");
    Applier::Job job = bench.job(one.file);
    const std::string staged = ".superlifter/stage/" + job.stage_name;
    bench.dest.write(staged, "0123");
    if (chmod(bench.dest.path(staged).c_str(), 0444) != 0) return false;
    job.staged_bytes = 4;
    bench.feed(std::move(job), "456789", 6);
    return bench.outcome().kind == Kind::kApplied && bench.dest.read("d/f") == "0123456789" &&
           (bench.stat_of("d/f").st_mode & 0777U) == 0444;
  }));
}

TEST(Applier, NewFileNeverTakesOverAnOldStagedOne) {
  OneFile one("content");
  Bench bench(one.tree);
  bench.dest.make_directory("d");
  Applier::Job job = bench.job(one.file);
  bench.dest.write(".superlifter/stage/" + job.stage_name, "something longer than content");
  bench.feed(std::move(job), "content", 3);
  EXPECT_EQ(bench.outcome().kind, Kind::kFailed);
  EXPECT_TRUE(std::filesystem::is_empty(bench.dest.path("d")));
}

TEST(Applier, LocalCopyIsVerified) {
  OneFile one("content");
  Bench bench(one.tree);
  bench.dest.make_directory("d");
  bench.dest.write("moved", "content");
  bench.dest.write("changed", "c0ntent");
  bench.dest.write("short", "conten");
  for (const char* from : {"changed", "short", "missing", "d", "moved"}) {
    Applier::Job job = bench.job(one.file);
    job.copy_from = from;
    bench.applier->run_local(std::move(job));
    const Applier::Outcome outcome = bench.outcome();
    EXPECT_TRUE(outcome.from_local);
    const bool right = std::string_view(from) == "moved";
    EXPECT_EQ(outcome.kind, right ? Kind::kApplied : Kind::kMismatch) << from;
    EXPECT_TRUE(bench.stage_is_empty()) << from;
  }
  EXPECT_EQ(bench.dest.read("d/f"), "content");
  EXPECT_EQ(bench.dest.read("moved"), "content");
}

TEST(Applier, CheckSetsTimesOfRightContentAndReportsWrong) {
  OneFile one("content");
  Bench bench(one.tree);
  bench.dest.write("d/f", "content");
  const auto check = [&] {
    Applier::Job job;
    job.entry = one.file;
    job.digest = one.tree.digest(one.file);
    job.check_only = true;
    bench.applier->run_local(std::move(job));
    return bench.outcome();
  };
  Applier::Outcome outcome = check();
  EXPECT_EQ(outcome.kind, Kind::kApplied);
  EXPECT_TRUE(outcome.checked_only);
  EXPECT_EQ(bench.stat_of("d/f").st_mtim.tv_sec, TargetTree::kMtimeSeconds);
  EXPECT_EQ(bench.stat_of("d/f").st_mode & 07777U, 0640U);
  bench.dest.write("d/f", "c0ntent");
  outcome = check();
  EXPECT_EQ(outcome.kind, Kind::kMismatch);
  EXPECT_TRUE(outcome.from_local);
  ASSERT_EQ(unlink(bench.dest.path("d/f").c_str()), 0);
  ASSERT_EQ(mkfifo(bench.dest.path("d/f").c_str(), 0600), 0);
  EXPECT_EQ(check().kind, Kind::kMismatch);
}

TEST(Applier, DirectoryInTheWayGoesOnlyWhenItMay) {
  OneFile one("content");
  Bench bench(one.tree);
  bench.dest.make_directory("d/f");
  bench.feed(bench.job(one.file), "content", 100);
  EXPECT_EQ(bench.outcome().kind, Kind::kApplied) << "an empty one goes always";
  ASSERT_EQ(unlink(bench.dest.path("d/f").c_str()), 0);
  bench.dest.write("d/f/mine", "x");
  bench.feed(bench.job(one.file), "content", 100);
  const Applier::Outcome outcome = bench.outcome();
  EXPECT_EQ(outcome.kind, Kind::kFailed);
  EXPECT_NE(outcome.error.message.find("--delete"), std::string::npos);
  EXPECT_EQ(bench.dest.read("d/f/mine"), "x");
  bench.restart(true);
  bench.feed(bench.job(one.file), "content", 100);
  EXPECT_EQ(bench.outcome().kind, Kind::kApplied);
  EXPECT_EQ(bench.dest.read("d/f"), "content");
}

TEST(Applier, SymlinkInTheWayIsReplacedNotFollowed) {
  OneFile one("content");
  Bench bench(one.tree);
  TempTree outside;
  outside.write("victim", "untouched");
  bench.dest.make_directory("d");
  ASSERT_EQ(symlink(outside.path("victim").c_str(), bench.dest.path("d/f").c_str()), 0);
  bench.feed(bench.job(one.file), "content", 100);
  EXPECT_EQ(bench.outcome().kind, Kind::kApplied);
  EXPECT_EQ(outside.read("victim"), "untouched");
  EXPECT_EQ(bench.dest.read("d/f"), "content");
}

TEST(Applier, SymlinkInPlaceOfTheDirectoryIsNotFollowed) {
  OneFile one("content");
  Bench bench(one.tree);
  TempTree outside;
  ASSERT_EQ(symlink(outside.path().c_str(), bench.dest.path("d").c_str()), 0);
  bench.feed(bench.job(one.file), "content", 100);
  EXPECT_EQ(bench.outcome().kind, Kind::kFailed);
  EXPECT_TRUE(std::filesystem::is_empty(outside.path()));
}

TEST(Applier, ReplacingOneNameLeavesItsHardLinksAlone) {
  OneFile one("new content");
  Bench bench(one.tree);
  bench.dest.write("snapshot", "old content");
  bench.dest.make_directory("d");
  ASSERT_EQ(link(bench.dest.path("snapshot").c_str(), bench.dest.path("d/f").c_str()), 0);
  bench.feed(bench.job(one.file), "new content", 4);
  EXPECT_EQ(bench.outcome().kind, Kind::kApplied);
  EXPECT_EQ(bench.dest.read("snapshot"), "old content");
  EXPECT_EQ(bench.stat_of("d/f").st_nlink, 1U);
}

TEST(Applier, ManyFilesAtOnceAllEnd) {
  TargetTree tree;
  std::vector<uint32_t> files;
  for (int i = 0; i < 500; ++i) {
    char name[16];
    std::snprintf(name, sizeof(name), "f%04d", i);
    files.push_back(tree.file(kRoot, name, std::string(static_cast<size_t>(i) * 7, 'x') + name));
  }
  tree.finish();
  Bench bench(tree);
  for (const uint32_t file : files) {
    bench.feed(bench.job(file), tree.content(file), 1 + file % 1000);
    if (file % 50 == 0) bench.applier->flush();
  }
  for (const Applier::Outcome& outcome : bench.outcomes(files.size())) {
    EXPECT_EQ(outcome.kind, Kind::kApplied);
  }
  for (const uint32_t file : files) {
    EXPECT_EQ(bench.dest.read(tree.view().path(file)), tree.content(file));
  }
}

TEST(Applier, EndInTheMiddleLeavesOldFilesAndAResumableStage) {
  TargetTree tree;
  std::vector<uint32_t> files;
  for (int i = 0; i < 200; ++i) {
    char name[16];
    std::snprintf(name, sizeof(name), "f%04d", i);
    files.push_back(tree.file(kRoot, name, std::string(3000, 'n') + name));
  }
  tree.finish();
  Bench bench(tree);
  for (const uint32_t file : files) {
    bench.dest.write(tree.view().path(file), "old");
  }
  for (const uint32_t file : files) {
    bench.feed(bench.job(file), tree.content(file), 700);
  }
  bench.applier->flush();
  bench.restart();
  for (const uint32_t file : files) {
    const std::string found = bench.dest.read(tree.view().path(file));
    EXPECT_TRUE(found == "old" || found == tree.content(file)) << found.size();
  }
}

}  // namespace
}  // namespace superlifter::client
