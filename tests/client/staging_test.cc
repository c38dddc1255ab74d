// The staging directory: its lock, what it hands to the next run, and removal of whole trees.
#include "client/staging.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "core/base/limits.h"
#include "tests/support/as_nobody.h"
#include "tests/support/temp_tree.h"

namespace superlifter::client {
namespace {

using tests::TempTree;

hash::Xxh128 digest_of(std::string_view text) {
  return hash::xxh128(as_bytes(text));
}

bool exists(const std::string& path) {
  struct stat stat{};
  return lstat(path.c_str(), &stat) == 0;
}

TEST(Staging, SecondPullIsRefusedAndToldThePid) {
  TempTree dest;
  const Result<Staging> first = Staging::open(dest.fd());
  ASSERT_TRUE(first) << first.error().message;
  const Result<Staging> second = Staging::open(dest.fd());
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Errc::kBusy);
  EXPECT_NE(second.error().message.find(std::to_string(getpid())), std::string::npos);
}

TEST(Staging, LockIsFreeOnceTheFirstIsGone) {
  TempTree dest;
  {
    ASSERT_TRUE(Staging::open(dest.fd()));
  }
  EXPECT_TRUE(Staging::open(dest.fd()));
}

TEST(Staging, SymlinkInPlaceOfItsDirectoryIsRefused) {
  TempTree dest;
  TempTree victim;
  ASSERT_EQ(symlink(victim.path().c_str(), dest.path(".superlifter").c_str()), 0);
  EXPECT_FALSE(Staging::open(dest.fd()));
  EXPECT_TRUE(std::filesystem::is_empty(victim.path()));
}

TEST(Staging, RemoveLeavesNothingWithoutAState) {
  TempTree dest;
  Result<Staging> staging = Staging::open(dest.fd());
  ASSERT_TRUE(staging);
  staging->remove();
  EXPECT_TRUE(std::filesystem::is_empty(dest.path()));
}

TEST(Staging, RemoveKeepsTheStateAndItsLock) {
  TempTree dest;
  Result<Staging> staging = Staging::open(dest.fd());
  ASSERT_TRUE(staging);
  dest.write(".superlifter/state.generation", "state");
  staging->remove();
  EXPECT_TRUE(exists(dest.path(".superlifter/state.generation")));
  EXPECT_TRUE(exists(dest.path(".superlifter/lock")));
  EXPECT_FALSE(exists(dest.path(".superlifter/stage")));
}

TEST(Staging, CanBeOpenedAgainAfterItWasRemoved) {
  TempTree dest;
  Result<Staging> first = Staging::open(dest.fd());
  ASSERT_TRUE(first);
  first->remove();
  // The first still holds a lock, of a file that has no name any more.
  EXPECT_TRUE(Staging::open(dest.fd()));
}

TEST(Staging, NamesAreUniqueAmongLeftovers) {
  TempTree dest;
  const hash::Xxh128 digest = digest_of("content");
  std::string name;
  {
    Result<Staging> staging = Staging::open(dest.fd());
    ASSERT_TRUE(staging);
    name = staging->new_name(digest, 7);
    dest.write(".superlifter/stage/" + name, "con");
  }
  Result<Staging> staging = Staging::open(dest.fd());
  ASSERT_TRUE(staging);
  EXPECT_NE(staging->new_name(digest, 7), name);
  EXPECT_NE(staging->new_name({}, 0), staging->new_name({}, 0));
}

TEST(Staging, LeftoverIsHandedOutOnceWithWhatIsThere) {
  TempTree dest;
  const hash::Xxh128 digest = digest_of("content");
  {
    Result<Staging> staging = Staging::open(dest.fd());
    ASSERT_TRUE(staging);
    dest.write(".superlifter/stage/" + staging->new_name(digest, 7), "con");
  }
  Result<Staging> staging = Staging::open(dest.fd());
  ASSERT_TRUE(staging);
  EXPECT_TRUE(staging->take_leftover(digest, 8).name.empty());
  EXPECT_TRUE(staging->take_leftover(digest_of("other"), 7).name.empty());
  EXPECT_TRUE(staging->take_leftover({}, 7).name.empty());
  const Staging::Leftover leftover = staging->take_leftover(digest, 7);
  EXPECT_EQ(leftover.size_bytes, 3U);
  EXPECT_TRUE(exists(dest.path(".superlifter/stage/" + leftover.name)));
  EXPECT_TRUE(staging->take_leftover(digest, 7).name.empty());
}

TEST(Staging, LeftoverThatIsTooLongCountsAsWhole) {
  TempTree dest;
  const hash::Xxh128 digest = digest_of("x");
  {
    Result<Staging> staging = Staging::open(dest.fd());
    ASSERT_TRUE(staging);
    dest.write(".superlifter/stage/" + staging->new_name(digest, 1), "xyz");
  }
  Result<Staging> staging = Staging::open(dest.fd());
  ASSERT_TRUE(staging);
  EXPECT_EQ(staging->take_leftover(digest, 1).size_bytes, 1U);
}

TEST(Staging, WhatCannotBeResumedIsGoneWhenTheNextRunBegins) {
  TempTree dest;
  const std::string hex(32, 'a');
  dest.write(".superlifter/stage/new.1", "content of no known digest");
  dest.write(".superlifter/stage/" + hex + "-5.1", "");  // Empty: nothing to resume.
  dest.write(".superlifter/stage/directory/file", "x");
  dest.write(".superlifter/stage/" + hex + "-7.x", "no number");
  dest.write(".superlifter/stage/" + hex + "-7.2", "part");
  ASSERT_EQ(symlink("/", dest.path(".superlifter/stage/" + hex + "-7.3").c_str()), 0);
  Result<Staging> staging = Staging::open(dest.fd());
  ASSERT_TRUE(staging) << staging.error().message;
  size_t count = 0;
  for (const auto& item : std::filesystem::directory_iterator(dest.path(".superlifter/stage"))) {
    EXPECT_EQ(item.path().filename(), hex + "-7.2");
    ++count;
  }
  EXPECT_EQ(count, 1U);
  staging->sweep();
  EXPECT_TRUE(std::filesystem::is_empty(dest.path(".superlifter/stage")));
}

TEST(RemoveTree, MissingCountsAsDone) {
  TempTree tree;
  uint64_t removed = 0;
  EXPECT_TRUE(remove_tree(tree.fd(), "nothing", removed));
  EXPECT_EQ(removed, 0U);
}

TEST(RemoveTree, CountsEveryEntry) {
  TempTree tree;
  tree.write("d/a", "x");
  tree.write("d/b/c", "x");
  tree.make_directory("d/empty");
  uint64_t removed = 0;
  ASSERT_TRUE(remove_tree(tree.fd(), "d", removed));
  EXPECT_EQ(removed, 5U);
  EXPECT_TRUE(std::filesystem::is_empty(tree.path()));
}

TEST(RemoveTree, SymlinksAreRemovedNotFollowed) {
  TempTree tree;
  TempTree outside;
  outside.write("file", "x");
  tree.make_directory("d");
  ASSERT_EQ(symlink(outside.path().c_str(), tree.path("d/directory").c_str()), 0);
  ASSERT_EQ(symlink(outside.path("file").c_str(), tree.path("d/file").c_str()), 0);
  ASSERT_EQ(symlink(outside.path().c_str(), tree.path("top").c_str()), 0);
  uint64_t removed = 0;
  ASSERT_TRUE(remove_tree(tree.fd(), "d", removed));
  ASSERT_TRUE(remove_tree(tree.fd(), "top", removed));
  EXPECT_EQ(removed, 4U);
  EXPECT_EQ(outside.read("file"), "x");
}

// Makes `levels` directories called d, one in the other.
void make_deep(int root_fd, size_t levels) {
  UniqueFd fd(dup(root_fd));
  for (size_t level = 0; level < levels; ++level) {
    ASSERT_EQ(mkdirat(fd.get(), "d", 0700), 0);
    fd = UniqueFd(openat(fd.get(), "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_TRUE(fd.valid());
  }
}

TEST(RemoveTree, DeepestTreeNeedsFewFds) {
  TempTree tree;
  make_deep(tree.fd(), kMaxDepth);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit few{.rlim_cur = 128, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  uint64_t removed = 0;
  const Status done = remove_tree(tree.fd(), "d", removed);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(removed, kMaxDepth);
}

TEST(RemoveTree, DeeperThanTheBoundIsRefused) {
  TempTree tree;
  make_deep(tree.fd(), kMaxDepth + 1);
  uint64_t removed = 0;
  const Status done = remove_tree(tree.fd(), "d", removed);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Errc::kLimit);
  const UniqueFd below(openat(tree.fd(), "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  EXPECT_TRUE(remove_tree(below.get(), "d", removed));
}

TEST(RemoveTree, WhatIsToStayKeepsTheDirectoriesAboveIt) {
  TempTree tree;
  tree.write("d/a", "x");
  tree.write("d/e/keep", "x");
  tree.write("d/e/f/other", "x");
  tree.write("d/kept-directory/file", "x");
  uint64_t removed = 0;
  const Status done =
      remove_tree(tree.fd(), "d", removed, [](std::string_view path, bool directory) {
        return path == "d/e/keep" || (path == "d/kept-directory" && directory);
      });
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(removed, 3U);
  EXPECT_TRUE(exists(tree.path("d/e/keep")));
  EXPECT_TRUE(exists(tree.path("d/kept-directory/file")));
  EXPECT_FALSE(exists(tree.path("d/e/f")));
  EXPECT_FALSE(exists(tree.path("d/a")));
}

TEST(RemoveTree, DirectoriesThatTheirOwnerMayNotWriteGoToo) {
  TempTree tree;
  ASSERT_EQ(chmod(tree.path().c_str(), 0777), 0);
  EXPECT_TRUE(tests::as_nobody([&] {
    tree.write("d/closed/a", "x");
    tree.write("d/unreadable/b", "x");
    if (chmod(tree.path("d/closed").c_str(), 0500) != 0) return false;
    if (chmod(tree.path("d/unreadable").c_str(), 0) != 0) return false;
    uint64_t removed = 0;
    return remove_tree(tree.fd(), "d", removed).has_value() && removed == 5;
  }));
  EXPECT_TRUE(std::filesystem::is_empty(tree.path()));
}

TEST(RemoveTree, FileThatMayNotBeRemovedIsNamed) {
  TempTree tree;
  if (geteuid() != 0) GTEST_SKIP() << "needs a file of somebody else";
  tree.write("d/of-root", "x");
  EXPECT_TRUE(tests::as_nobody([&] {
    uint64_t removed = 0;
    const Status done = remove_tree(tree.fd(), "d", removed);
    return !done && done.error().sys_errno != 0 && removed == 0;
  }));
  EXPECT_TRUE(exists(tree.path("d/of-root")));
}

TEST(Staging, APatchIsNeverALeftover) {
  TempTree dest;
  std::string name;
  {
    Result<Staging> staging = Staging::open(dest.fd());
    ASSERT_TRUE(staging);
    name = staging->new_patch_name();
    EXPECT_NE(name, staging->new_patch_name());
    dest.write(".superlifter/stage/" + name, "in parts");
  }
  Result<Staging> staging = Staging::open(dest.fd());
  ASSERT_TRUE(staging);
  EXPECT_TRUE(std::filesystem::is_empty(dest.path(".superlifter/stage")));
}

}  // namespace
}  // namespace superlifter::client
