// Everything of a tree but the content of files: directories, symlinks, hard links, deletions,
// modes.
#include "client/publish.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "tests/support/as_nobody.h"
#include "tests/support/target_tree.h"
#include "tests/support/temp_tree.h"

namespace superlifter::client {
namespace {

using tests::TargetTree;
using tests::TempTree;
using tree::kRoot;

// One pull's worth of steps over a destination, without the transfer.
class Steps {
 public:
  Steps(const TempTree& dest, const TargetTree& target, bool delete_extra = false,
        const Filter* filter = nullptr)
      : staging_(Staging::open(dest.fd())),
        table_(target.view()),
        comparison_(compare({.destination_fd = dest.fd(),
                             .table = target.view(),
                             .filter = filter,
                             .list_extra = delete_extra,
                             .make_accessible = true})),
        context{.destination_fd = dest.fd(),
                .table = table_,
                .comparison = *comparison_,
                .staging = *staging_,
                .owner = false,
                .delete_extra = delete_extra && filter == nullptr,
                .is_single_file = false,
                .filter = filter,
                .errors = errors} {}

  // All steps; files are put there by `transfer`.
  void all(const std::function<void()>& transfer = {}) {
    make_directories(context);
    if (transfer) transfer();
    make_symlinks(context);
    make_hard_links(context);
    client::delete_extra(context, stats);
    finish_directories(context);
  }
  Comparison& comparison() { return *comparison_; }

  std::vector<std::string> errors;
  Stats stats;

 private:
  Result<Staging> staging_;
  tree::TableView table_;
  Result<Comparison> comparison_;

 public:
  PublishContext context;
};

struct stat stat_of(const TempTree& dest, std::string_view path) {
  struct stat stat{};
  EXPECT_EQ(lstat(dest.path(path).c_str(), &stat), 0) << path;
  return stat;
}

std::string target_of(const TempTree& dest, std::string_view path) {
  return std::filesystem::read_symlink(dest.path(path));
}

TEST(Publish, DirectoriesGetTheirModesAndTimesLast) {
  TargetTree target;
  const uint32_t outer = target.directory(kRoot, "outer", 0555);
  target.directory(outer, "inner", 0700);
  target.symlink(outer, "link", "inner");
  target.finish();
  TempTree dest;
  Steps run(dest, target);
  run.all();
  EXPECT_TRUE(run.errors.empty()) << run.errors.front();
  EXPECT_EQ(stat_of(dest, "outer").st_mode & 07777U, 0555U);
  EXPECT_EQ(stat_of(dest, "outer").st_mtim.tv_sec, TargetTree::kMtimeSeconds);
  EXPECT_EQ(stat_of(dest, "outer/inner").st_mode & 07777U, 0700U);
  EXPECT_EQ(stat_of(dest, "").st_mode & 07777U, 0755U);
  EXPECT_EQ(stat_of(dest, "").st_mtim.tv_nsec, TargetTree::kMtimeNanoseconds);
  EXPECT_EQ(target_of(dest, "outer/link"), "inner");
  EXPECT_EQ(stat_of(dest, "outer/link").st_mtim.tv_sec, TargetTree::kMtimeSeconds);
  for (uint32_t entry = 0; entry < target.view().count(); ++entry) {
    EXPECT_TRUE(run.comparison().local[entry].known()) << entry;
  }
}

TEST(Publish, FileAndSymlinkGiveWayToADirectory) {
  TargetTree target;
  target.directory(kRoot, "a");
  target.directory(kRoot, "b");
  target.finish();
  TempTree dest;
  TempTree outside;
  outside.write("file", "x");
  dest.write("a", "in the way");
  ASSERT_EQ(symlink(outside.path().c_str(), dest.path("b").c_str()), 0);
  Steps run(dest, target);
  run.all();
  EXPECT_TRUE(run.errors.empty());
  EXPECT_TRUE(S_ISDIR(stat_of(dest, "a").st_mode));
  EXPECT_TRUE(S_ISDIR(stat_of(dest, "b").st_mode));
  EXPECT_EQ(outside.read("file"), "x");
}

TEST(Publish, DirectoryThatAppearedMeanwhileKeepsItsContent) {
  TargetTree target;
  target.directory(kRoot, "a");
  target.finish();
  TempTree dest;
  Steps run(dest, target, true);
  dest.write("a/file", "made after the comparison");
  run.all();
  EXPECT_TRUE(run.errors.empty());
  EXPECT_EQ(dest.read("a/file"), "made after the comparison");
}

TEST(Publish, SymlinkReplacesAFileButNoFullDirectory) {
  TargetTree target;
  target.symlink(kRoot, "a", "/etc/passwd");
  target.symlink(kRoot, "b", "../..");
  target.finish();
  TempTree dest;
  dest.write("a", "old");
  dest.write("b/mine", "x");
  Steps run(dest, target);
  run.all();
  EXPECT_EQ(target_of(dest, "a"), "/etc/passwd");
  ASSERT_EQ(run.errors.size(), 1U);
  EXPECT_TRUE(run.errors[0].starts_with("b: ")) << run.errors[0];
  EXPECT_EQ(dest.read("b/mine"), "x");
}

TEST(Publish, HardLinksShareOneInode) {
  TargetTree target;
  const uint32_t first = target.file(kRoot, "a", "content");
  const uint32_t second = target.hard_link(kRoot, "b", first);
  const uint32_t third = target.hard_link(kRoot, "c", first);
  target.finish();
  TempTree dest;
  dest.write("b", "old");
  Steps run(dest, target);
  run.all([&] {
    target.place(dest, first);
    run.comparison().local[first] = to_local_stat(stat_of(dest, "a"));
    run.comparison().xxh[first] = target.digest(first);
  });
  EXPECT_TRUE(run.errors.empty());
  EXPECT_EQ(stat_of(dest, "a").st_ino, stat_of(dest, "b").st_ino);
  EXPECT_EQ(stat_of(dest, "a").st_ino, stat_of(dest, "c").st_ino);
  EXPECT_EQ(run.comparison().xxh[second], target.digest(first));
  EXPECT_EQ(run.comparison().xxh[third], target.digest(first));
  EXPECT_EQ(run.comparison().local[first], to_local_stat(stat_of(dest, "a")));
}

TEST(Publish, HardLinkThatIsRightHasTheDigestOfTheFirst) {
  TargetTree target;
  const uint32_t first = target.file(kRoot, "a", "content");
  const uint32_t second = target.hard_link(kRoot, "b", first);
  target.finish();
  TempTree dest;
  target.place_all(dest);
  Steps run(dest, target);
  run.comparison().xxh[first] = target.digest(first);
  run.all();
  EXPECT_EQ(run.comparison().xxh[second], target.digest(first));
}

TEST(Publish, HardLinkWithoutItsFirstIsNamed) {
  TargetTree target;
  const uint32_t first = target.file(kRoot, "a", "content");
  target.hard_link(kRoot, "b", first);
  target.finish();
  TempTree dest;
  Steps run(dest, target);
  run.all();
  ASSERT_EQ(run.errors.size(), 1U);
  EXPECT_TRUE(run.errors[0].starts_with("b: ")) << run.errors[0];
}

TEST(Publish, ExtrasAreDeletedAndCounted) {
  TargetTree target;
  target.directory(kRoot, "a");
  target.finish();
  TempTree dest;
  target.place_all(dest);
  dest.write("a/extra/deep/file", "x");
  dest.write("file", "x");
  Steps run(dest, target, true);
  run.all();
  EXPECT_TRUE(run.errors.empty());
  EXPECT_EQ(run.stats.files_deleted, 4U);
  EXPECT_TRUE(std::filesystem::is_empty(dest.path("a")));
  EXPECT_EQ(stat_of(dest, "a").st_mtim.tv_sec, TargetTree::kMtimeSeconds);
}

TEST(Publish, WhatAFilterExcludesSurvivesInsideAnExtraDirectory) {
  TargetTree target;
  target.directory(kRoot, "a");
  target.finish();
  TempTree dest;
  target.place_all(dest);
  dest.write("a/extra/keep.txt", "x");
  dest.write("a/extra/go.txt", "x");
  dest.write("a/extra/go/go.txt", "x");
  Filter filter;
  ASSERT_TRUE(filter.add(Filter::Action::kExclude, "/a/extra/keep.txt"));
  Steps run(dest, target, true, &filter);
  run.all();
  EXPECT_TRUE(run.errors.empty());
  EXPECT_EQ(dest.read("a/extra/keep.txt"), "x");
  EXPECT_EQ(run.stats.files_deleted, 3U);
}

TEST(Publish, MetadataOfFilesIsSetInPlace) {
  TargetTree target;
  const uint32_t file = target.file(kRoot, "a", "content", 0444);
  target.finish();
  TempTree dest;
  target.place_all(dest);
  const ino_t inode = stat_of(dest, "a").st_ino;
  ASSERT_EQ(chmod(dest.path("a").c_str(), 0600), 0);
  Steps run(dest, target);
  run.all();
  EXPECT_EQ(stat_of(dest, "a").st_mode & 07777U, 0444U);
  EXPECT_EQ(stat_of(dest, "a").st_ino, inode);
  EXPECT_EQ(run.comparison().local[file], to_local_stat(stat_of(dest, "a")));
}

TEST(Publish, DirectoriesThatTheirOwnerMayNotWriteAreFilledAndClosedAgain) {
  TargetTree target;
  const uint32_t closed = target.directory(kRoot, "closed", 0555);
  const uint32_t deeper = target.directory(closed, "deeper", 0555);
  target.symlink(deeper, "link", "somewhere");
  const uint32_t unreadable = target.directory(kRoot, "unreadable", 0311);
  target.symlink(unreadable, "link", "somewhere");
  target.finish();
  TempTree dest;
  ASSERT_EQ(chown(dest.path().c_str(), geteuid() == 0 ? tests::kNobody : geteuid(),
                  static_cast<gid_t>(-1)),
            0);
  EXPECT_TRUE(tests::as_nobody([&] {
    dest.make_directory("closed/deeper");
    dest.make_directory("unreadable");
    dest.write("closed/extra", "x");
    dest.write("unset", "x");
    target.set_directories(dest);
    {
      Steps run(dest, target, true);
      run.all();
      if (!run.errors.empty() || run.stats.files_deleted != 2) return false;
    }
    if ((stat_of(dest, "closed").st_mode & 07777U) != 0555U) return false;
    if ((stat_of(dest, "closed/deeper").st_mode & 07777U) != 0555U) return false;
    if ((stat_of(dest, "unreadable").st_mode & 07777U) != 0311U) return false;
    if (target_of(dest, "closed/deeper/link") != "somewhere") return false;
    return target_of(dest, "unreadable/link") == "somewhere";
  }));
}

TEST(Publish, FileThatItsOwnerMayNotReadGetsItsMode) {
  TargetTree target;
  target.file(kRoot, "a", "content", 0640);
  target.finish();
  TempTree dest;
  ASSERT_EQ(chown(dest.path().c_str(), geteuid() == 0 ? tests::kNobody : geteuid(),
                  static_cast<gid_t>(-1)),
            0);
  EXPECT_TRUE(tests::as_nobody([&] {
    target.place_all(dest);
    if (chmod(dest.path("a").c_str(), 0) != 0) return false;
    Steps run(dest, target);
    run.all();
    return run.errors.empty() && (stat_of(dest, "a").st_mode & 07777U) == 0640U;
  }));
}

}  // namespace
}  // namespace superlifter::client
