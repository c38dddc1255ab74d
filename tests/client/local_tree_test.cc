// What a destination lacks, compared with a target tree: every action, filters, extras, digests
// that the last pull knew.
#include "client/local_tree.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "core/catalog/builder.h"
#include "core/tree/node.h"
#include "tests/support/as_nobody.h"
#include "tests/support/target_tree.h"
#include "tests/support/temp_tree.h"

namespace superlifter::client {
namespace {

using tests::TargetTree;
using tests::TempTree;
using tree::kRoot;

Comparison compare_with(const TempTree& dest, const TargetTree& target,
                        CompareOptions options = {}) {
  options.destination_fd = dest.fd();
  options.table = target.view();
  Result<Comparison> comparison = compare(options);
  EXPECT_TRUE(comparison) << comparison.error().message;
  return comparison ? std::move(*comparison) : Comparison{};
}

void touch(const std::string& path, int64_t seconds) {
  const timespec times[2] = {{.tv_sec = 0, .tv_nsec = UTIME_OMIT},
                             {.tv_sec = seconds, .tv_nsec = 0}};
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW), 0);
}

// root: a/ (b, link -> b, twin = b), c
struct Sample {
  Sample() {
    a = target.directory(kRoot, "a");
    b = target.file(a, "b", "content of b");
    link = target.symlink(a, "link", "b");
    twin = target.hard_link(a, "twin", b);
    c = target.file(kRoot, "c", "content of c", 0600);
    target.finish();
  }
  TargetTree target;
  uint32_t a, b, link, twin, c;
};

TEST(LocalTree, WhatIsRightNeedsNothing) {
  const Sample sample;
  TempTree dest;
  sample.target.place_all(dest);
  const Comparison comparison = compare_with(dest, sample.target);
  for (uint32_t entry = 0; entry < sample.target.view().count(); ++entry) {
    EXPECT_EQ(comparison.actions[entry], Action::kNone) << entry;
    EXPECT_TRUE(comparison.local[entry].known()) << entry;
  }
  EXPECT_EQ(comparison.files_unchanged, 3U);
  EXPECT_TRUE(comparison.errors.empty());
}

TEST(LocalTree, EmptyDestinationNeedsEverything) {
  const Sample sample;
  TempTree dest;
  const Comparison comparison = compare_with(dest, sample.target);
  EXPECT_EQ(comparison.actions[kRoot], Action::kMetadata);
  EXPECT_EQ(comparison.actions[sample.a], Action::kDirectory);
  EXPECT_EQ(comparison.actions[sample.b], Action::kFetch);
  EXPECT_EQ(comparison.actions[sample.link], Action::kSymlink);
  EXPECT_EQ(comparison.actions[sample.twin], Action::kHardLink);
  EXPECT_EQ(comparison.actions[sample.c], Action::kFetch);
  EXPECT_FALSE(comparison.local[sample.b].known());
}

TEST(LocalTree, NoDestinationAtAllIsLikeAnEmptyOne) {
  const Sample sample;
  const Result<Comparison> comparison =
      compare({.destination_fd = -1, .table = sample.target.view(), .list_extra = true});
  ASSERT_TRUE(comparison);
  EXPECT_EQ(comparison->actions[sample.a], Action::kDirectory);
  EXPECT_EQ(comparison->actions[sample.b], Action::kFetch);
  EXPECT_EQ(comparison->actions[sample.link], Action::kSymlink);
  EXPECT_TRUE(comparison->errors.empty());
  EXPECT_TRUE(comparison->extra.empty());
}

TEST(LocalTree, OtherSizeIsFetchedOtherTimeIsChecked) {
  const Sample sample;
  TempTree dest;
  sample.target.place_all(dest);
  dest.write("c", "longer than it should be");
  touch(dest.path("a/b"), 5);
  const Comparison comparison = compare_with(dest, sample.target);
  EXPECT_EQ(comparison.actions[sample.c], Action::kFetch);
  EXPECT_EQ(comparison.actions[sample.b], Action::kCheck);
  // Its leader may get another inode.
  EXPECT_EQ(comparison.actions[sample.twin], Action::kHardLink);
}

TEST(LocalTree, ChecksumChecksWhatLooksRight) {
  const Sample sample;
  TempTree dest;
  sample.target.place_all(dest);
  const Comparison comparison = compare_with(dest, sample.target, {.checksum = true});
  EXPECT_EQ(comparison.actions[sample.b], Action::kCheck);
  EXPECT_EQ(comparison.actions[sample.c], Action::kCheck);
}

TEST(LocalTree, OtherModeAloneIsMetadata) {
  const Sample sample;
  TempTree dest;
  sample.target.place_all(dest);
  ASSERT_EQ(chmod(dest.path("c").c_str(), 0640), 0);
  ASSERT_EQ(chmod(dest.path("a").c_str(), 0700), 0);
  const Comparison comparison = compare_with(dest, sample.target);
  EXPECT_EQ(comparison.actions[sample.c], Action::kMetadata);
  EXPECT_EQ(comparison.actions[sample.a], Action::kMetadata);
  EXPECT_EQ(comparison.actions[sample.b], Action::kNone);
}

TEST(LocalTree, SetuidIsNotWantedWithoutOwner) {
  TargetTree target;
  const uint32_t entry = target.file(kRoot, "f", "x", 06755);
  target.finish();
  TempTree dest;
  dest.write("f", "x");
  target.set_metadata(dest, entry);
  ASSERT_EQ(chmod(dest.path("f").c_str(), 0755), 0);
  EXPECT_EQ(compare_with(dest, target).actions[entry], Action::kNone);
  ASSERT_EQ(chmod(dest.path("f").c_str(), 06755), 0);
  EXPECT_EQ(compare_with(dest, target).actions[entry], Action::kMetadata);
}

TEST(LocalTree, LinkedToAStrangerIsCopiedBeforeItIsTouched) {
  const Sample sample;
  TempTree dest;
  sample.target.place_all(dest);
  ASSERT_EQ(link(dest.path("c").c_str(), dest.path("stranger").c_str()), 0);
  EXPECT_EQ(compare_with(dest, sample.target).actions[sample.c], Action::kNone);
  ASSERT_EQ(chmod(dest.path("c").c_str(), 0640), 0);
  EXPECT_EQ(compare_with(dest, sample.target).actions[sample.c], Action::kUnshare);
  // A group that has more names than it should.
  ASSERT_EQ(link(dest.path("a/b").c_str(), dest.path("other").c_str()), 0);
  ASSERT_EQ(chmod(dest.path("a/b").c_str(), 0640), 0);
  EXPECT_EQ(compare_with(dest, sample.target).actions[sample.b], Action::kUnshare);
}

TEST(LocalTree, GroupThatCameApartIsLinkedAnew) {
  const Sample sample;
  TempTree dest;
  sample.target.place_all(dest);
  ASSERT_EQ(unlink(dest.path("a/twin").c_str()), 0);
  dest.write("a/twin", "content of b");
  sample.target.set_metadata(dest, sample.twin);
  const Comparison comparison = compare_with(dest, sample.target);
  EXPECT_EQ(comparison.actions[sample.b], Action::kNone);
  EXPECT_EQ(comparison.actions[sample.twin], Action::kHardLink);
}

TEST(LocalTree, OtherKindIsMadeAnew) {
  const Sample sample;
  TempTree dest;
  dest.write("a", "a file where a directory belongs");
  dest.write("c/file", "a directory where a file belongs");
  Comparison comparison = compare_with(dest, sample.target);
  EXPECT_EQ(comparison.actions[sample.a], Action::kDirectory);
  EXPECT_EQ(comparison.actions[sample.b], Action::kFetch);
  EXPECT_EQ(comparison.actions[sample.c], Action::kFetch);
  // A symlink to a directory is no directory.
  ASSERT_EQ(unlink(dest.path("a").c_str()), 0);
  ASSERT_EQ(symlink("c", dest.path("a").c_str()), 0);
  comparison = compare_with(dest, sample.target);
  EXPECT_EQ(comparison.actions[sample.a], Action::kDirectory);
}

TEST(LocalTree, SymlinkIsComparedByTargetAndTime) {
  const Sample sample;
  TempTree dest;
  sample.target.place_all(dest);
  touch(dest.path("a/link"), 5);
  EXPECT_EQ(compare_with(dest, sample.target).actions[sample.link], Action::kMetadata);
  ASSERT_EQ(unlink(dest.path("a/link").c_str()), 0);
  ASSERT_EQ(symlink("c", dest.path("a/link").c_str()), 0);
  EXPECT_EQ(compare_with(dest, sample.target).actions[sample.link], Action::kSymlink);
}

TEST(LocalTree, WhatAFilterExcludesIsNotLookedAt) {
  const Sample sample;
  TempTree dest;
  Filter filter;
  ASSERT_TRUE(filter.add(Filter::Action::kExclude, "a/"));
  dest.write("a", "in the way");
  const Comparison comparison = compare_with(dest, sample.target, {.filter = &filter});
  for (uint32_t entry = sample.a; entry < sample.c; ++entry) {
    EXPECT_EQ(comparison.actions[entry], Action::kSkip);
  }
  EXPECT_EQ(comparison.actions[sample.c], Action::kFetch);
}

TEST(LocalTree, HardLinkToAnExcludedFileIsAFileOfItsOwn) {
  const Sample sample;
  TempTree dest;
  Filter filter;
  ASSERT_TRUE(filter.add(Filter::Action::kExclude, "/a/b"));
  Comparison comparison = compare_with(dest, sample.target, {.filter = &filter});
  EXPECT_EQ(comparison.actions[sample.b], Action::kSkip);
  EXPECT_EQ(comparison.actions[sample.twin], Action::kFetch);
  dest.write("a/twin", "content of b");
  sample.target.set_metadata(dest, sample.twin);
  comparison = compare_with(dest, sample.target, {.filter = &filter});
  EXPECT_EQ(comparison.actions[sample.twin], Action::kNone);
}

TEST(LocalTree, ExtrasAreListedByTheirRoots) {
  const Sample sample;
  TempTree dest;
  sample.target.place_all(dest);
  dest.write("0", "first");
  dest.write("a/a", "x");
  dest.write("a/z/deep/file", "x");
  dest.write("z", "last");
  dest.make_directory(".superlifter/stage");
  Comparison comparison = compare_with(dest, sample.target, {.list_extra = true});
  std::sort(comparison.extra.begin(), comparison.extra.end());
  EXPECT_EQ(comparison.extra, (std::vector<std::string>{"0", "a/a", "a/z", "z"}));
  EXPECT_TRUE(compare_with(dest, sample.target).extra.empty());
}

TEST(LocalTree, WhatAFilterExcludesIsNoExtra) {
  const Sample sample;
  TempTree dest;
  sample.target.place_all(dest);
  dest.write("mine", "x");
  dest.write("cache/x", "x");
  dest.write("other", "x");
  Filter filter;
  ASSERT_TRUE(filter.add(Filter::Action::kExclude, "mine"));
  ASSERT_TRUE(filter.add(Filter::Action::kExclude, "cache/"));
  const Comparison comparison =
      compare_with(dest, sample.target, {.filter = &filter, .list_extra = true});
  EXPECT_EQ(comparison.extra, std::vector<std::string>{"other"});
}

TEST(LocalTree, DeepTreeNeedsFewFdsAndItsExtrasAreStillJudged) {
  constexpr int kLevels = 300;  // More than are held open.
  TargetTree target;
  TempTree dest;
  uint32_t parent = kRoot;
  std::string path;
  for (int level = 0; level < kLevels; ++level) {
    parent = target.directory(parent, "d");
    path += path.empty() ? "d" : "/d";
  }
  target.finish();
  target.place_all(dest);
  // Found on the way up, when the top levels were let go.
  dest.make_directory("d/protected");
  dest.write("d/removed", "x");
  Filter filter;
  ASSERT_TRUE(filter.add(Filter::Action::kExclude, "protected/"));
  const Comparison comparison = compare_with(dest, target, {.filter = &filter, .list_extra = true});
  EXPECT_EQ(comparison.extra, std::vector<std::string>{"d/removed"});
  EXPECT_TRUE(comparison.errors.empty());
}

// A state as a pull of `target` would have left it.
std::shared_ptr<const catalog::Catalog> make_state(const TempTree& where, const TargetTree& target,
                                                   const std::vector<catalog::LocalStat>& local) {
  catalog::NodePack pack;
  catalog::Parts parts;
  parts.header.root = tree::encode_tree(
      target.view(), {.xxh = target.xxh(), .sha = {}},
      [&](const hash::Sha256& digest, ByteView bytes) { pack.add(digest, bytes); });
  pack.sort();
  parts.table = target.view();
  parts.nodes = &pack;
  parts.xxh = target.xxh();
  parts.local = local;
  parts.all_nodes = catalog::AllNodes::kOmit;
  EXPECT_TRUE(catalog::build(where.fd(), "state", parts));
  auto state = catalog::Catalog::open(where.fd(), "state", catalog::Verify::kEverything);
  EXPECT_TRUE(state) << state.error().message;
  return state ? *state : nullptr;
}

TEST(LocalTree, DigestsAreInheritedWhereSizeAndTimeAgree) {
  TargetTree old;
  const uint32_t old_directory = old.directory(kRoot, "a");
  const uint32_t old_same = old.file(old_directory, "same", "one");
  old.file(kRoot, "b-other-size", "two");
  old.file(kRoot, "gone", "three");
  old.finish();
  TargetTree target;
  const uint32_t directory = target.directory(kRoot, "a");
  const uint32_t same = target.file(directory, "same", "one");
  const uint32_t added = target.file(directory, "same-not", "new");
  const uint32_t other_size = target.file(kRoot, "b-other-size", "two and more");
  target.finish();
  TempTree dest;
  TempTree states;
  const auto state = make_state(states, old, std::vector<catalog::LocalStat>(old.view().count()));
  ASSERT_NE(state, nullptr);
  const Comparison comparison = compare_with(dest, target, {.state = state.get()});
  EXPECT_EQ(comparison.xxh[same], old.digest(old_same));
  EXPECT_FALSE(comparison.xxh[added].known());
  EXPECT_FALSE(comparison.xxh[other_size].known());
}

TEST(LocalTree, UnreadableDirectoryIsNamedOrOpenedUp) {
  TargetTree target;
  const uint32_t directory = target.directory(kRoot, "closed", 0311);
  const uint32_t file = target.file(directory, "f", "x");
  target.finish();
  TempTree dest;
  ASSERT_EQ(chmod(dest.path().c_str(), 0777), 0);
  EXPECT_TRUE(tests::as_nobody([&] {
    dest.write("closed/f", "x");
    target.set_metadata(dest, file);
    target.set_metadata(dest, directory);
    const Comparison looked = compare_with(dest, target);
    if (looked.errors.size() != 1) return false;
    const Comparison opened = compare_with(dest, target, {.make_accessible = true});
    return opened.errors.empty() && opened.actions[directory] == Action::kMetadata &&
           opened.actions[file] == Action::kNone;
  }));
}

}  // namespace
}  // namespace superlifter::client
