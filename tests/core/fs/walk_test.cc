// fs/walk: order, bounds, and trees that change underneath.
#include "core/fs/walk.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "core/base/limits.h"
#include "tests/support/temp_tree.h"

namespace superlifter::fs {
namespace {

struct Seen {
  Status status;
  std::vector<std::string> paths;
  std::map<std::string, std::string> targets;
  std::map<std::string, Errc> left_out;
};

Seen walk_all(int root_fd, WalkHandlers handlers = {}, const WalkOptions& options = {}) {
  Seen seen;
  const auto also = handlers.entry;
  handlers.entry = [&](const WalkEntry& entry) {
    seen.paths.emplace_back(entry.path);
    if (S_ISLNK(entry.stat->st_mode)) seen.targets[seen.paths.back()] = entry.target;
    const auto slashes = std::count(entry.path.begin(), entry.path.end(), '/');
    EXPECT_EQ(entry.depth, entry.path.empty() ? 0U : static_cast<size_t>(slashes) + 1);
    EXPECT_EQ(entry.name, entry.path.substr(entry.path.rfind('/') + 1));
    return also ? also(entry) : Status();
  };
  handlers.left_out = [&](std::string_view path, const Error& why) {
    seen.left_out[std::string(path)] = why.code;
  };
  seen.status = walk(root_fd, handlers, options);
  return seen;
}

// Makes a chain of directories with that many one-byte names, through fds, and a file at its end.
void make_chain(int root_fd, size_t depth, const std::string& name, const std::string& last) {
  UniqueFd at(::dup(root_fd));
  for (size_t i = 0; i < depth; ++i) {
    ASSERT_EQ(::mkdirat(at.get(), name.c_str(), 0755), 0);
    at = UniqueFd(::openat(at.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_TRUE(at.valid());
  }
  const UniqueFd file(::openat(at.get(), last.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  ASSERT_TRUE(file.valid());
}

// Takes a chain away again: std::filesystem cannot name what is that deep.
void remove_chain(int root_fd, const std::string& name) {
  // Bring each level up to the root and remove the emptied one, so that no path grows.
  while (::renameat(root_fd, (name + "/" + name).c_str(), root_fd, "next") == 0) {
    ASSERT_EQ(::unlinkat(root_fd, name.c_str(), AT_REMOVEDIR), 0);
    ASSERT_EQ(::renameat(root_fd, "next", root_fd, name.c_str()), 0);
  }
}

TEST(Walk, GoesInPreorderWithBytewiseNames) {
  const tests::TempTree tree;
  tree.write("b/z", "");
  tree.write("b/a/deep", "");
  tree.write("a-", "");
  tree.write("a", "");
  tree.write("B", "");
  tree.make_directory("empty");
  const Seen seen = walk_all(tree.fd());
  ASSERT_TRUE(seen.status) << seen.status.error().message;
  EXPECT_EQ(seen.paths,
            (std::vector<std::string>{"", "B", "a", "a-", "b", "b/a", "b/a/deep", "b/z", "empty"}));
  EXPECT_TRUE(seen.left_out.empty());
}

TEST(Walk, SortsASlashBelowOtherBytesByDirectoryNotByPath) {
  // By whole paths "a!" would come before "a/x"; by directories "a" and all of it comes first.
  const tests::TempTree tree;
  tree.write("a/x", "");
  tree.write("a!", "");
  EXPECT_EQ(walk_all(tree.fd()).paths, (std::vector<std::string>{"", "a", "a/x", "a!"}));
}

TEST(Walk, TakesNamesOfAnyBytes) {
  const tests::TempTree tree;
  const std::vector<std::string> names = {"\x01\x02", "\n", " ", "\xff\xfe",
                                          "\xc3(",    "\\", "*", std::string(255, 'n')};
  for (const std::string& name : names) {
    tree.write(name, "");
  }
  std::vector<std::string> expected = names;
  std::sort(expected.begin(), expected.end());
  expected.insert(expected.begin(), "");
  EXPECT_EQ(walk_all(tree.fd()).paths, expected);
}

TEST(Walk, ReadsSymlinksAndNeverFollowsThem) {
  const tests::TempTree tree;
  tree.write("directory/file", "");
  ASSERT_EQ(::symlink("directory", tree.path("link").c_str()), 0);
  ASSERT_EQ(::symlink("/no/such\xff", tree.path("dangling").c_str()), 0);
  const std::string longest(4095, 't');
  ASSERT_EQ(::symlink(longest.c_str(), tree.path("long").c_str()), 0);
  const Seen seen = walk_all(tree.fd());
  EXPECT_EQ(seen.paths, (std::vector<std::string>{"", "dangling", "directory", "directory/file",
                                                  "link", "long"}));
  EXPECT_EQ(seen.targets.at("link"), "directory");
  EXPECT_EQ(seen.targets.at("dangling"), "/no/such\xff");
  EXPECT_EQ(seen.targets.at("long"), longest);
}

TEST(Walk, LeavesSpecialFilesOut) {
  const tests::TempTree tree;
  ASSERT_EQ(::mkfifo(tree.path("fifo").c_str(), 0644), 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string socket_path = tree.path("socket");
  ASSERT_LT(socket_path.size(), sizeof(address.sun_path));
  std::memcpy(address.sun_path, socket_path.data(), socket_path.size());
  const UniqueFd socket_fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::bind(socket_fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)),
            0);
  const Seen seen = walk_all(tree.fd());
  EXPECT_EQ(seen.paths, std::vector<std::string>{""});
  EXPECT_EQ(seen.left_out.at("fifo"), Errc::kUnsupported);
  EXPECT_EQ(seen.left_out.at("socket"), Errc::kUnsupported);
}

TEST(Walk, SkipsWhatTheFilterSkips) {
  const tests::TempTree tree;
  tree.write("keep/file", "");
  tree.write("skip/file", "");
  ASSERT_EQ(::mkfifo(tree.path("skipped-fifo").c_str(), 0644), 0);
  std::vector<std::string> asked;
  WalkHandlers handlers;
  handlers.filter = [&](const WalkEntry& entry) {
    asked.emplace_back(entry.path);
    return entry.path.starts_with("skip") ? Verdict::kSkip : Verdict::kTake;
  };
  const Seen seen = walk_all(tree.fd(), handlers);
  EXPECT_EQ(seen.paths, (std::vector<std::string>{"", "keep", "keep/file"}));
  EXPECT_EQ(asked, (std::vector<std::string>{"keep", "keep/file", "skip", "skipped-fifo"}));
  EXPECT_TRUE(seen.left_out.empty());
}

TEST(Walk, StopsWhereTheFilterStops) {
  const tests::TempTree tree;
  tree.write("a", "");
  tree.write("b", "");
  tree.write("c", "");
  WalkHandlers handlers;
  handlers.filter = [](const WalkEntry& entry) {
    return entry.path == "b" ? Verdict::kStop : Verdict::kTake;
  };
  const Seen seen = walk_all(tree.fd(), handlers);
  ASSERT_FALSE(seen.status);
  EXPECT_EQ(seen.status.error().code, Errc::kClosed);
  EXPECT_EQ(seen.paths, (std::vector<std::string>{"", "a"}));
}

TEST(Walk, EndsWithTheHandlersError) {
  const tests::TempTree tree;
  tree.write("a", "");
  WalkHandlers handlers;
  handlers.entry = [](const WalkEntry& entry) -> Status {
    if (entry.path == "a") return fail(Errc::kLimit, "enough");
    return {};
  };
  const Seen seen = walk_all(tree.fd(), handlers);
  ASSERT_FALSE(seen.status);
  EXPECT_EQ(seen.status.error().message, "enough");
}

TEST(Walk, TakesAPathOf4095BytesAndLeavesOutOneLonger) {
  const tests::TempTree tree;
  // 2,047 times "d/" and one byte are 4,095.
  make_chain(tree.fd(), 2047, "d", "f");
  const Seen seen = walk_all(tree.fd());
  ASSERT_TRUE(seen.status) << seen.status.error().message;
  ASSERT_EQ(seen.paths.size(), 2049U);
  EXPECT_EQ(seen.paths.back().size(), kMaxPathBytes);
  EXPECT_TRUE(seen.left_out.empty());
  // One byte more in the last name.
  std::string deepest = seen.paths.back();
  deepest.pop_back();
  deepest.pop_back();
  UniqueFd at(::dup(tree.fd()));
  for (size_t i = 0; i < 2047; ++i) {
    at = UniqueFd(::openat(at.get(), "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  ASSERT_EQ(::renameat(at.get(), "f", at.get(), "ff"), 0);
  const Seen longer = walk_all(tree.fd());
  ASSERT_TRUE(longer.status);
  EXPECT_EQ(longer.paths.size(), 2048U);
  ASSERT_EQ(longer.left_out.size(), 1U);
  EXPECT_EQ(longer.left_out.begin()->second, Errc::kLimit);
  EXPECT_EQ(longer.left_out.begin()->first, deepest + "/ff");
  ASSERT_EQ(::unlinkat(at.get(), "ff", 0), 0);
  at.reset();
  remove_chain(tree.fd(), "d");
}

TEST(Walk, HoldsNoMoreThanTheGivenNumberOfFdsAndReopensAncestors) {
  const tests::TempTree tree;
  for (const std::string directory : {"a", "a/b", "a/b/c", "a/b/c/d", "a/b/c/d/e"}) {
    tree.make_directory(directory);
    tree.write(directory + "/0", "");
    tree.write(directory + "/z", "");
  }
  const Seen all = walk_all(tree.fd());
  size_t most = 0;
  WalkHandlers handlers;
  handlers.entry = [&](const WalkEntry&) {
    size_t open_fds = 0;
    for (const auto& fd : std::filesystem::directory_iterator("/proc/self/fd")) {
      static_cast<void>(fd);
      ++open_fds;
    }
    most = std::max(most, open_fds);
    return Status();
  };
  size_t before = 0;
  for (const auto& fd : std::filesystem::directory_iterator("/proc/self/fd")) {
    static_cast<void>(fd);
    ++before;
  }
  const Seen few = walk_all(tree.fd(), handlers, {.max_open_directories = 1});
  ASSERT_TRUE(few.status);
  EXPECT_EQ(few.paths, all.paths);
  EXPECT_TRUE(few.left_out.empty());
  EXPECT_LE(most, before + 2);  // One held, one being opened.
}

TEST(Walk, ReportsAnAncestorThatWasReplacedBehindIt) {
  const tests::TempTree tree;
  tree.write("a/b/c/file", "");
  tree.write("a/z", "");
  tree.write("last", "");
  WalkHandlers handlers;
  handlers.entry = [&](const WalkEntry& entry) {
    if (entry.path == "a/b/c/file") {
      EXPECT_EQ(::rename(tree.path("a").c_str(), tree.path("moved").c_str()), 0);
      tree.write("a/z", "another");
    }
    return Status();
  };
  const Seen seen = walk_all(tree.fd(), handlers, {.max_open_directories = 1});
  ASSERT_TRUE(seen.status);
  EXPECT_EQ(seen.left_out, (std::map<std::string, Errc>{{"a", Errc::kStale}}));
  EXPECT_EQ(seen.paths.back(), "last");
}

TEST(Walk, PassesOverWhatVanishesWhileItLooks) {
  const tests::TempTree tree;
  tree.write("a", "");
  tree.write("b", "");
  tree.write("c/file", "");
  tree.write("d", "");
  WalkHandlers handlers;
  handlers.entry = [&](const WalkEntry& entry) {
    if (entry.path == "a") {
      std::filesystem::remove(tree.path("b"));
      std::filesystem::remove_all(tree.path("c"));
    }
    return Status();
  };
  const Seen seen = walk_all(tree.fd(), handlers);
  ASSERT_TRUE(seen.status);
  EXPECT_EQ(seen.paths, (std::vector<std::string>{"", "a", "d"}));
  EXPECT_TRUE(seen.left_out.empty());
}

TEST(Walk, LooksAnewWhenADirectoryBecomesASymlinkUnderIt) {
  const tests::TempTree outside;
  outside.write("secret", "");
  const tests::TempTree tree;
  tree.write("d/file", "");
  WalkHandlers handlers;
  bool replaced = false;
  handlers.filter = [&](const WalkEntry& entry) {
    // After the stat, before the open.
    if (entry.path == "d" && !replaced) {
      replaced = true;
      std::filesystem::remove_all(tree.path("d"));
      EXPECT_EQ(::symlink(outside.path().c_str(), tree.path("d").c_str()), 0);
    }
    return Verdict::kTake;
  };
  const Seen seen = walk_all(tree.fd(), handlers);
  ASSERT_TRUE(seen.status);
  EXPECT_EQ(seen.paths, (std::vector<std::string>{"", "d"}));
  EXPECT_EQ(seen.targets.at("d"), outside.path());
}

TEST(Walk, GivesUpOnANameThatNeverHoldsStill) {
  const tests::TempTree tree;
  tree.make_directory("d");
  WalkHandlers handlers;
  handlers.filter = [&](const WalkEntry& entry) {
    if (S_ISDIR(entry.stat->st_mode)) {
      EXPECT_EQ(::rmdir(tree.path("d").c_str()), 0);
      EXPECT_EQ(::symlink("x", tree.path("d").c_str()), 0);
    } else {
      EXPECT_EQ(::unlink(tree.path("d").c_str()), 0);
      EXPECT_EQ(::mkdir(tree.path("d").c_str(), 0755), 0);
    }
    return Verdict::kTake;
  };
  const Seen seen = walk_all(tree.fd(), handlers);
  ASSERT_TRUE(seen.status);
  EXPECT_EQ(seen.paths, std::vector<std::string>{""});
  EXPECT_EQ(seen.left_out.at("d"), Errc::kStale);
}

TEST(Walk, FailsForARootThatWasRemovedOrIsNoDirectory) {
  const tests::TempTree tree;
  tree.make_directory("root");
  tree.write("file", "");
  const UniqueFd root(::open(tree.path("root").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_EQ(::rmdir(tree.path("root").c_str()), 0);
  const Seen removed = walk_all(root.get());
  ASSERT_FALSE(removed.status);
  EXPECT_EQ(removed.status.error().code, Errc::kNotFound);
  EXPECT_TRUE(removed.paths.empty());
  const UniqueFd file(::open(tree.path("file").c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_FALSE(walk_all(file.get()).status);
}

// Permission bits do not stop root, so the walk runs as somebody else in a child, whose exit status
// is the number of the check that failed.
TEST(Walk, ReportsADirectoryThatItMayNotRead) {
  const tests::TempTree tree;
  tree.write("locked/file", "");
  tree.write("open", "");
  ASSERT_EQ(::chmod(tree.path().c_str(), 0755), 0);
  ASSERT_EQ(::chmod(tree.path("locked").c_str(), 0), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (::geteuid() == 0 && ::seteuid(65534) != 0) ::_exit(1);
    const Seen seen = walk_all(tree.fd());
    if (!seen.status) ::_exit(2);
    if (seen.paths != std::vector<std::string>{"", "open"}) ::_exit(3);
    ::_exit(seen.left_out == std::map<std::string, Errc>{{"locked", Errc::kIo}} ? 0 : 4);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  ASSERT_EQ(::chmod(tree.path("locked").c_str(), 0755), 0);
}

TEST(Walk, ListsADirectoryOfManyNamesOnceEach) {
  constexpr size_t kCount = 20'000;  // Several getdents64 buffers.
  const tests::TempTree tree;
  for (size_t i = 0; i < kCount; ++i) {
    const std::string name = "some-name-of-a-usual-length-" + std::to_string(i);
    ASSERT_EQ(::mknodat(tree.fd(), name.c_str(), S_IFREG | 0644, 0), 0);
  }
  const Seen seen = walk_all(tree.fd());
  EXPECT_EQ(seen.paths.size(), kCount + 1);
  EXPECT_TRUE(std::is_sorted(seen.paths.begin(), seen.paths.end()));
  EXPECT_EQ(std::adjacent_find(seen.paths.begin(), seen.paths.end()), seen.paths.end());
}

}  // namespace
}  // namespace superlifter::fs
