// What is to be fetched and stands in DEST under another name: by the last pull's digests, or by
// what a move keeps.
#include "client/moved.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/catalog/builder.h"
#include "core/tree/node.h"
#include "tests/support/target_tree.h"
#include "tests/support/temp_tree.h"

namespace superlifter::client {
namespace {

using tests::TargetTree;
using tests::TempTree;
using tree::kRoot;

// A target, what is to be done about it, and DEST.
struct Bench {
  // After the target's last entry: nothing is to be done, digests are known.
  void finish() {
    target.finish();
    comparison.actions.assign(target.view().count(), Action::kNone);
    comparison.local.resize(target.view().count());
    comparison.xxh = target.xxh();
  }
  void set(uint32_t entry, Action action) { comparison.actions[entry] = action; }
  MovedFiles::Options options() const {
    return {.destination_fd = dest.fd(),
            .comparison = &comparison,
            .state = state.get(),
            .table = target.view()};
  }
  // A file in DEST with the time that the target's files have.
  void put(std::string_view path, std::string_view content,
           int64_t mtime_s = TargetTree::kMtimeSeconds,
           uint32_t mtime_ns = TargetTree::kMtimeNanoseconds) const {
    dest.write(path, content);
    const timespec times[2] = {{.tv_sec = 0, .tv_nsec = UTIME_OMIT},
                               {.tv_sec = mtime_s, .tv_nsec = mtime_ns}};
    ASSERT_EQ(utimensat(AT_FDCWD, dest.path(path).c_str(), times, AT_SYMLINK_NOFOLLOW), 0);
  }
  // A state as a pull of `old` left it; those entries that are `known` are in place.
  void remember(const TargetTree& old, const std::set<uint32_t>& known) {
    catalog::NodePack pack;
    catalog::Parts parts;
    std::vector<catalog::LocalStat> local(old.view().count());
    for (const uint32_t entry : known)
      local[entry].inode = entry + 1;
    parts.header.root = tree::encode_tree(
        old.view(), {.xxh = old.xxh(), .sha = {}},
        [&](const hash::Sha256& digest, ByteView bytes) { pack.add(digest, bytes); });
    pack.sort();
    parts.table = old.view();
    parts.nodes = &pack;
    parts.xxh = old.xxh();
    parts.local = local;
    parts.all_nodes = catalog::AllNodes::kOmit;
    ASSERT_TRUE(catalog::build(states.fd(), "state", parts));
    auto opened = catalog::Catalog::open(states.fd(), "state", catalog::Verify::kEverything);
    ASSERT_TRUE(opened) << opened.error().message;
    state = *opened;
  }

  TargetTree target;
  Comparison comparison;
  TempTree dest;
  TempTree states;
  std::shared_ptr<const catalog::Catalog> state;
};

TEST(MovedFiles, AStateNamesWhatHasTheDigest) {
  Bench bench;
  const uint32_t moved = bench.target.file(kRoot, "moved", "content");
  const uint32_t twin = bench.target.file(kRoot, "moved-twin", "content");
  const uint32_t other = bench.target.file(kRoot, "other", "anew");
  bench.finish();
  for (const uint32_t entry : {moved, twin, other})
    bench.set(entry, Action::kFetch);
  TargetTree old;
  const uint32_t directory = old.directory(kRoot, "d");
  const uint32_t there = old.file(directory, "was-here", "content");
  old.finish();
  bench.remember(old, {there});
  const MovedFiles files(bench.options());
  EXPECT_EQ(files.path_of(moved), "d/was-here");
  EXPECT_EQ(files.path_of(twin), "d/was-here");
  EXPECT_EQ(files.path_of(other), "");
}

TEST(MovedFiles, AStateNamesNothingThatWasNotInPlace) {
  Bench bench;
  const uint32_t moved = bench.target.file(kRoot, "moved", "content");
  bench.finish();
  bench.set(moved, Action::kFetch);
  TargetTree old;
  old.file(kRoot, "a-failed", "content");
  const uint32_t there = old.file(kRoot, "b-there", "content");
  old.finish();
  bench.remember(old, {there});
  EXPECT_EQ(MovedFiles(bench.options()).path_of(moved), "b-there");
  bench.remember(old, {});
  EXPECT_EQ(MovedFiles(bench.options()).path_of(moved), "");
}

TEST(MovedFiles, OnlyContentThatIsToBeFetchedAndHasADigestIsLookedFor) {
  Bench bench;
  const uint32_t checked = bench.target.file(kRoot, "checked", "content");
  const uint32_t empty = bench.target.file(kRoot, "empty", "");
  const uint32_t fine = bench.target.file(kRoot, "fine", "content");
  const uint32_t unknown = bench.target.file(kRoot, "unknown", "content");
  bench.finish();
  bench.set(checked, Action::kCheck);
  bench.set(empty, Action::kFetch);
  bench.set(unknown, Action::kFetch);
  bench.comparison.xxh[unknown] = {};
  bench.put("moved", "content");
  bench.put("moved-empty", "");
  const MovedFiles files(bench.options());
  for (const uint32_t entry : {checked, empty, fine, unknown})
    EXPECT_EQ(files.path_of(entry), "") << entry;
}

TEST(MovedFiles, WithoutAStateSizeAndTimeAreWorthATry) {
  Bench bench;
  const uint32_t moved = bench.target.file(kRoot, "moved", "content");
  bench.finish();
  bench.set(moved, Action::kFetch);
  bench.put("d/longer", "content!");
  bench.put("d/second-off", "content", TargetTree::kMtimeSeconds + 1);
  bench.put("d/nanosecond-off", "content", TargetTree::kMtimeSeconds,
            TargetTree::kMtimeNanoseconds + 1);
  EXPECT_EQ(MovedFiles(bench.options()).path_of(moved), "");
  bench.put("d/e/right", "CONTENT");  // A guess, which the digest decides.
  EXPECT_EQ(MovedFiles(bench.options()).path_of(moved), "d/e/right");
}

TEST(MovedFiles, TheNameDecidesAmongEquals) {
  for (const std::string before : {"a", "z"}) {  // Walked before the right one, or after it.
    Bench bench;
    const uint32_t directory = bench.target.directory(kRoot, "new");
    const uint32_t one = bench.target.file(directory, "one", "1......");
    const uint32_t two = bench.target.file(directory, "two", "2......");
    bench.finish();
    bench.set(one, Action::kFetch);
    bench.set(two, Action::kFetch);
    bench.put(before + "/no-name-of-theirs", "x......");
    bench.put("m/two", "2......");
    bench.put("m/one", "1......");
    const MovedFiles files(bench.options());
    EXPECT_EQ(files.path_of(one), "m/one");
    EXPECT_EQ(files.path_of(two), "m/two");
  }
}

TEST(MovedFiles, EachFileHereServesOneEntry) {
  Bench bench;
  std::vector<uint32_t> wanted;
  for (const char* name : {"a", "b", "c", "d", "e"})
    wanted.push_back(bench.target.file(kRoot, name, "1234567"));
  bench.finish();
  for (const uint32_t entry : wanted)
    bench.set(entry, Action::kFetch);
  for (const char* path : {"old/1", "old/2", "old/3"})
    bench.put(path, "7654321");
  const MovedFiles files(bench.options());
  std::multiset<std::string> named;
  for (const uint32_t entry : wanted)
    if (!files.path_of(entry).empty()) named.insert(files.path_of(entry));
  EXPECT_EQ(named, (std::multiset<std::string>{"old/1", "old/2", "old/3"}));
}

TEST(MovedFiles, NothingOfTheClientsOwnIsNamed) {
  Bench bench;
  const uint32_t moved = bench.target.file(kRoot, "moved", "content");
  bench.finish();
  bench.set(moved, Action::kFetch);
  bench.put(".superlifter/stage/moved", "content");
  bench.put(".superlifter/moved", "content");
  EXPECT_EQ(MovedFiles(bench.options()).path_of(moved), "");
  bench.put("d/.superlifter/moved", "content");  // Somebody's tree in the tree.
  EXPECT_EQ(MovedFiles(bench.options()).path_of(moved), "d/.superlifter/moved");
}

TEST(MovedFiles, OnlyFilesAreNamed) {
  Bench bench;
  const uint32_t moved = bench.target.file(kRoot, "moved", "content");
  bench.finish();
  bench.set(moved, Action::kFetch);
  // A symlink's size is its target's length.
  ASSERT_EQ(symlink("1234567", bench.dest.path("link").c_str()), 0);
  ASSERT_EQ(mkfifo(bench.dest.path("fifo").c_str(), 0600), 0);
  TempTree outside;
  outside.write("file", "content");
  bench.dest.make_directory("d");
  ASSERT_EQ(symlink(outside.path().c_str(), bench.dest.path("d/out").c_str()), 0);
  const timespec times[2] = {
      {.tv_sec = 0, .tv_nsec = UTIME_OMIT},
      {.tv_sec = TargetTree::kMtimeSeconds, .tv_nsec = TargetTree::kMtimeNanoseconds}};
  for (const std::string& path :
       {bench.dest.path("link"), bench.dest.path("fifo"), outside.path("file")})
    ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW), 0);
  EXPECT_EQ(MovedFiles(bench.options()).path_of(moved), "");
}

// root: a and b, which have changed places, and c, which was d.
struct ChangedPlaces : Bench {
  ChangedPlaces() {
    a = target.file(kRoot, "a", "was in b");
    b = target.file(kRoot, "b", "was in a");
    c = target.file(kRoot, "c", "was in d");
    finish();
    for (const uint32_t entry : {a, b, c})
      set(entry, Action::kFetch);
    TargetTree old;
    const uint32_t old_a = old.file(kRoot, "a", "was in a");
    const uint32_t old_b = old.file(kRoot, "b", "was in b");
    const uint32_t old_d = old.file(kRoot, "d", "was in d");
    old.finish();
    old.place_all(dest);
    remember(old, {old_a, old_b, old_d});
  }
  uint32_t a = 0, b = 0, c = 0;
};

TEST(MovedFiles, WhatIsReplacedIsKeptInStagingAndTheRestIsNot) {
  ChangedPlaces bench;
  Result<Staging> staging = Staging::open(bench.dest.fd());
  ASSERT_TRUE(staging);
  MovedFiles files(bench.options());
  files.keep_replaced(bench.options(), *staging);
  EXPECT_EQ(files.path_of(bench.c), "d");
  for (const uint32_t entry : {bench.a, bench.b}) {
    EXPECT_TRUE(files.path_of(entry).starts_with(".superlifter/stage/")) << files.path_of(entry);
    EXPECT_EQ(bench.dest.read(files.path_of(entry)), bench.target.content(entry));
  }
  // They outlive what takes their names.
  ASSERT_EQ(unlink(bench.dest.path("a").c_str()), 0);
  ASSERT_EQ(unlink(bench.dest.path("b").c_str()), 0);
  EXPECT_EQ(bench.dest.read(files.path_of(bench.a)), "was in b");
  EXPECT_EQ(bench.dest.read(files.path_of(bench.b)), "was in a");
  staging->sweep();
  EXPECT_TRUE(std::filesystem::is_empty(bench.dest.path(".superlifter/stage")));
}

TEST(MovedFiles, WhatIsWantedTwiceIsKeptOnce) {
  Bench bench;
  const uint32_t a = bench.target.file(kRoot, "a", "another");
  const uint32_t b = bench.target.file(kRoot, "b", "content");
  const uint32_t c = bench.target.file(kRoot, "c", "content");
  bench.finish();
  for (const uint32_t entry : {a, b, c})
    bench.set(entry, Action::kFetch);
  TargetTree old;
  const uint32_t old_a = old.file(kRoot, "a", "content");
  old.finish();
  old.place_all(bench.dest);
  bench.remember(old, {old_a});
  Result<Staging> staging = Staging::open(bench.dest.fd());
  ASSERT_TRUE(staging);
  MovedFiles files(bench.options());
  files.keep_replaced(bench.options(), *staging);
  EXPECT_EQ(files.path_of(b), files.path_of(c));
  EXPECT_EQ(bench.dest.read(files.path_of(b)), "content");
  EXPECT_EQ(std::filesystem::hard_link_count(bench.dest.path("a")), 2U);
}

TEST(MovedFiles, AFileWhoseDirectoryBecomesSomethingElseIsKept) {
  Bench bench;
  const uint32_t d = bench.target.symlink(kRoot, "d", "e");
  const uint32_t moved = bench.target.file(kRoot, "moved", "content");
  bench.finish();
  bench.set(d, Action::kSymlink);
  bench.set(moved, Action::kFetch);
  bench.put("d/file", "content");
  Result<Staging> staging = Staging::open(bench.dest.fd());
  ASSERT_TRUE(staging);
  MovedFiles files(bench.options());
  ASSERT_EQ(files.path_of(moved), "d/file");
  files.keep_replaced(bench.options(), *staging);
  EXPECT_TRUE(files.path_of(moved).starts_with(".superlifter/stage/"));
  EXPECT_EQ(bench.dest.read(files.path_of(moved)), "content");
}

TEST(MovedFiles, WhatStaysAsItIsNeedsNoSecondName) {
  Bench bench;
  const uint32_t copy = bench.target.file(kRoot, "copy", "content");
  const uint32_t stays = bench.target.file(kRoot, "stays", "content");
  bench.finish();
  bench.set(copy, Action::kFetch);
  bench.put("stays", "content");
  Result<Staging> staging = Staging::open(bench.dest.fd());
  ASSERT_TRUE(staging);
  for (const Action action : {Action::kNone, Action::kSkip, Action::kMetadata}) {
    bench.set(stays, action);
    MovedFiles files(bench.options());
    files.keep_replaced(bench.options(), *staging);
    EXPECT_EQ(files.path_of(copy), "stays");
  }
  EXPECT_TRUE(std::filesystem::is_empty(bench.dest.path(".superlifter/stage")));
}

TEST(MovedFiles, WhatIsNotThereAnyMoreIsLeftToTheCopy) {
  ChangedPlaces bench;
  ASSERT_EQ(unlink(bench.dest.path("b").c_str()), 0);
  Result<Staging> staging = Staging::open(bench.dest.fd());
  ASSERT_TRUE(staging);
  MovedFiles files(bench.options());
  files.keep_replaced(bench.options(), *staging);
  EXPECT_EQ(files.path_of(bench.a), "b");
  EXPECT_TRUE(files.path_of(bench.b).starts_with(".superlifter/stage/"));
}

}  // namespace
}  // namespace superlifter::client
