// fs/watch: what is noticed below a root. Events of one's own writes are queued when the call
// returns, so no test waits.
#include "core/fs/watch.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "tests/support/temp_tree.h"

namespace superlifter::fs {
namespace {

class Watch : public testing::Test {
 protected:
  Watcher make(WatchOptions options = {}) const {
    Result<Watcher> watcher = Watcher::make(tree_.fd(), std::move(options));
    EXPECT_TRUE(watcher) << (watcher ? "" : watcher.error().message);
    return std::move(*watcher);
  }
  static bool is_readable(const Watcher& watcher) {
    pollfd poll_fd{.fd = watcher.fd(), .events = POLLIN, .revents = 0};
    return ::poll(&poll_fd, 1, 0) == 1;
  }
  static bool changed(Watcher& watcher) {
    const Result<Watcher::Changes> changes = watcher.drain();
    EXPECT_TRUE(changes);
    EXPECT_FALSE(is_readable(watcher));
    return changes && changes->changed;
  }

  tests::TempTree tree_;
};

TEST_F(Watch, IsSilentWhileNothingChanges) {
  tree_.write("a/file", "x");
  Watcher watcher = make();
  EXPECT_FALSE(is_readable(watcher));
  EXPECT_FALSE(changed(watcher));
  EXPECT_EQ(tree_.read("a/file"), "x");  // Reading is no change.
  EXPECT_FALSE(changed(watcher));
}

TEST_F(Watch, NoticesEachKindOfChangeAnywhereBelow) {
  tree_.write("a/b/file", "x");
  Watcher watcher = make();
  tree_.write("a/b/file", "y");
  EXPECT_TRUE(is_readable(watcher));
  EXPECT_TRUE(changed(watcher));
  tree_.write("a/new", "");
  EXPECT_TRUE(changed(watcher));
  ASSERT_EQ(::rename(tree_.path("a/new").c_str(), tree_.path("a/newer").c_str()), 0);
  EXPECT_TRUE(changed(watcher));
  ASSERT_EQ(::chmod(tree_.path("a/newer").c_str(), 0600), 0);
  EXPECT_TRUE(changed(watcher));
  ASSERT_EQ(::link(tree_.path("a/newer").c_str(), tree_.path("a/b/link").c_str()), 0);
  EXPECT_TRUE(changed(watcher));
  ASSERT_EQ(::unlink(tree_.path("a/newer").c_str()), 0);
  EXPECT_TRUE(changed(watcher));
  ASSERT_EQ(::symlink("x", tree_.path("symlink").c_str()), 0);
  EXPECT_TRUE(changed(watcher));
  ASSERT_EQ(::chmod(tree_.path().c_str(), 0755), 0);
  EXPECT_TRUE(changed(watcher));
  EXPECT_FALSE(changed(watcher));
}

TEST_F(Watch, WatchesNewDirectoriesAndAllThatIsInThemAlready) {
  Watcher watcher = make();
  tree_.write("new/deeper/file", "");
  EXPECT_TRUE(changed(watcher));
  EXPECT_EQ(watcher.watch_count(), 3U);
  tree_.write("new/deeper/file", "more");
  EXPECT_TRUE(changed(watcher));
}

TEST_F(Watch, FollowsADirectoryThatMovesWithinTheTree) {
  tree_.write("a/b/file", "");
  tree_.make_directory("c");
  Watcher watcher = make();
  EXPECT_EQ(watcher.watch_count(), 4U);
  ASSERT_EQ(::rename(tree_.path("a").c_str(), tree_.path("c/z").c_str()), 0);
  EXPECT_TRUE(changed(watcher));
  EXPECT_EQ(watcher.watch_count(), 4U);
  tree_.write("c/z/b/file", "more");
  EXPECT_TRUE(changed(watcher));
  // New directories below the moved one are found by its new path.
  tree_.make_directory("c/z/b/new");
  EXPECT_TRUE(changed(watcher));
  EXPECT_EQ(watcher.watch_count(), 5U);
}

TEST_F(Watch, FollowsSeveralMovesInOneBatch) {
  tree_.write("a/b/file", "");
  Watcher watcher = make();
  ASSERT_EQ(::rename(tree_.path("a").c_str(), tree_.path("x").c_str()), 0);
  ASSERT_EQ(::rename(tree_.path("x/b").c_str(), tree_.path("y").c_str()), 0);
  ASSERT_EQ(::rename(tree_.path("x").c_str(), tree_.path("y/x").c_str()), 0);
  ASSERT_EQ(::rename(tree_.path("y").c_str(), tree_.path("a").c_str()), 0);
  EXPECT_TRUE(changed(watcher));
  EXPECT_EQ(watcher.watch_count(), 3U);
  tree_.write("a/x/file", "");
  EXPECT_TRUE(changed(watcher));
}

TEST_F(Watch, DropsADirectoryThatLeavesTheTree) {
  const tests::TempTree outside;
  tree_.write("a/b/file", "");
  Watcher watcher = make();
  ASSERT_EQ(::rename(tree_.path("a").c_str(), outside.path("a").c_str()), 0);
  tree_.make_directory("a");  // Another one in its place.
  const Result<Watcher::Changes> changes = watcher.drain();
  ASSERT_TRUE(changes);
  EXPECT_TRUE(changes->changed);
  EXPECT_EQ(watcher.watch_count(), 2U);
  EXPECT_FALSE(changed(watcher));  // Reads the kernel's words on the watches that were removed.
  outside.write("a/b/file", "more");
  EXPECT_FALSE(changed(watcher));
}

TEST_F(Watch, ForgetsADirectoryThatIsRemoved) {
  tree_.write("a/b/file", "");
  Watcher watcher = make();
  std::filesystem::remove_all(tree_.path("a"));
  EXPECT_TRUE(changed(watcher));
  EXPECT_EQ(watcher.watch_count(), 1U);
}

TEST_F(Watch, IgnoresItsOwnDirectoryAndWhatIsExcluded) {
  tree_.make_directory(".superlifter");
  tree_.make_directory("private");
  tree_.make_directory("sub/.superlifter");
  WatchOptions options;
  options.exclude.push_back(*Glob::parse("/private/"));
  options.exclude.push_back(*Glob::parse("*.tmp"));
  options.exclude.push_back(*Glob::parse("*-in-progress"));
  options.notice.push_back(*Glob::parse("/Update-in-progress"));
  Watcher watcher = make(std::move(options));
  EXPECT_EQ(watcher.watch_count(), 3U);
  tree_.write(".superlifter/state", "");
  tree_.write("private/file", "");
  tree_.write("x.tmp", "");
  EXPECT_FALSE(changed(watcher));
  tree_.write("sub/.superlifter/state", "");  // Only the root's own is ours.
  EXPECT_TRUE(changed(watcher));
  tree_.write("Update-in-progress", "");  // Excluded, and noticed all the same.
  EXPECT_TRUE(changed(watcher));
}

TEST_F(Watch, LeavesTheSkippedDirectoryAlone) {
  tree_.make_directory("cache/catalog/module");
  const UniqueFd catalog(
      ::open(tree_.path("cache/catalog").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  WatchOptions options;
  options.skip_directory_fd = catalog.get();
  Watcher watcher = make(std::move(options));
  EXPECT_EQ(watcher.watch_count(), 2U);
  tree_.write("cache/catalog/module/CURRENT", "1");
  tree_.write("cache/catalog/new", "1");
  EXPECT_FALSE(changed(watcher));
}

TEST_F(Watch, SaysSoWhenTheRootGoes) {
  tree_.make_directory("root");
  const UniqueFd root(::open(tree_.path("root").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  Result<Watcher> watcher = Watcher::make(root.get(), {});
  ASSERT_TRUE(watcher);
  ASSERT_EQ(::rename(tree_.path("root").c_str(), tree_.path("moved").c_str()), 0);
  const Result<Watcher::Changes> changes = watcher->drain();
  ASSERT_TRUE(changes);
  EXPECT_TRUE(changes->root_gone);
}

TEST_F(Watch, FindsDirectoriesAnewWhenEventsWereLost) {
  std::ifstream limit_file("/proc/sys/fs/inotify/max_queued_events");
  size_t limit = 0;
  ASSERT_TRUE(limit_file >> limit);
  Watcher watcher = make();
  // Each of these is two events, and no two in a row are alike.
  for (size_t i = 0; i < limit / 2 + 16; ++i) {
    ASSERT_EQ(::mknodat(tree_.fd(), "f", S_IFREG | 0644, 0), 0);
    ASSERT_EQ(::unlinkat(tree_.fd(), "f", 0), 0);
  }
  tree_.make_directory("unseen");
  const Result<Watcher::Changes> changes = watcher.drain();
  ASSERT_TRUE(changes);
  EXPECT_TRUE(changes->changed);
  EXPECT_TRUE(changes->events_lost);
  EXPECT_EQ(watcher.watch_count(), 2U);
  tree_.write("unseen/file", "");
  EXPECT_TRUE(changed(watcher));
}

TEST_F(Watch, WorksAfterItWasMoved) {
  tree_.make_directory("a");
  Watcher first = make();
  Watcher watcher = std::move(first);
  tree_.write("a/b/file", "");
  EXPECT_TRUE(changed(watcher));
  EXPECT_EQ(watcher.watch_count(), 3U);
}

}  // namespace
}  // namespace superlifter::fs
