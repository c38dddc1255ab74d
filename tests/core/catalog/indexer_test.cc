// indexer: whole passes over real trees. What must happen between the walk and the hashing is done
// from on_provisional, which runs exactly there, so nothing depends on luck.
#include "core/catalog/indexer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <set>
#include <string>
#include <thread>

#include "core/base/limits.h"
#include "core/catalog/journal.h"
#include "core/catalog/publisher.h"
#include "core/fs/beneath.h"
#include "core/tree/node.h"
#include "tests/support/temp_tree.h"

namespace superlifter::catalog {
namespace {

using Outcome = IndexReport::Outcome;

class Indexer : public testing::Test {
 protected:
  IndexOptions options() const {
    IndexOptions out;
    out.module = "module";
    out.root_fd = tree_.fd();
    out.catalog_fd = catalogs_.fd();
    out.threads = 2;
    return out;
  }
  static IndexReport index(const IndexOptions& options) {
    const Result<IndexReport> report = index_module(options);
    EXPECT_TRUE(report) << (report ? "" : report.error().message);
    return report.value_or(IndexReport());
  }
  IndexReport index() const { return index(options()); }

  int module_fd() {
    if (!module_fd_) {
      module_fd_ =
          UniqueFd(::open(catalogs_.path("module").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    }
    return module_fd_.get();
  }
  std::shared_ptr<const Catalog> generation(uint64_t number) {
    const auto catalog =
        Catalog::open(module_fd(), generation_file_name(number), Verify::kEverything);
    CHECK(catalog.has_value());
    return *catalog;
  }
  std::shared_ptr<const Catalog> live() {
    return generation(read_current(module_fd()).value_or(0));
  }
  static std::set<std::string> paths(const Catalog& catalog) {
    std::set<std::string> out;
    for (uint32_t entry = 1; entry < catalog.table().count(); ++entry) {
      out.insert(catalog.table().path(entry));
    }
    return out;
  }
  static uint32_t find(const Catalog& catalog, std::string_view path) {
    const uint32_t entry = catalog.table().find(path);
    CHECK(entry != tree::kNoEntry);
    return entry;
  }
  // The live generation has this content, by both digests, at the path.
  void expect_content(std::string_view path, std::string_view content) {
    const auto catalog = live();
    const uint32_t entry = find(*catalog, path);
    EXPECT_EQ(catalog->xxh()[entry], hash::xxh128(as_bytes(content))) << path;
    EXPECT_EQ(catalog->sha()[entry], hash::sha256(as_bytes(content))) << path;
    EXPECT_EQ(catalog->table().record(entry).size_bytes, content.size()) << path;
    struct stat stat{};
    ASSERT_EQ(::lstat(tree_.path(path).c_str(), &stat), 0);
    EXPECT_EQ(catalog->validators(entry), fs::to_validators(stat)) << path;
  }
  // The nodes in the generation are the tree in its table, whole.
  static void expect_sound(const Catalog& catalog) {
    const Result<tree::Table> table =
        tree::expand(catalog.header().root, catalog.header().root_metadata,
                     [&](const hash::Sha256& digest) { return catalog.node(digest); },
                     {.entries = catalog.table().count()});
    ASSERT_TRUE(table) << table.error().message;
    const tree::TableView view = table->view();
    ASSERT_EQ(view.count(), catalog.table().count());
    for (uint32_t entry = 0; entry < view.count(); ++entry) {
      ASSERT_EQ(view.path(entry), catalog.table().path(entry));
      ASSERT_EQ(view.record(entry).size_bytes, catalog.table().record(entry).size_bytes);
      ASSERT_EQ(view.record(entry).link_or_files, catalog.table().record(entry).link_or_files);
    }
  }
  // A pass whose tree is changed by `change` after the walk and before the hashing.
  template <class Change>
  IndexReport index_while(Change change) const {
    IndexOptions with = options();
    with.on_provisional = [&](const IndexReport&) { change(); };
    return index(with);
  }

  tests::TempTree tree_;
  tests::TempTree catalogs_;
  UniqueFd module_fd_;
};

TEST_F(Indexer, PublishesAProvisionalGenerationFirstAndThenTheWholeOne) {
  tree_.write("a/file", "content");
  tree_.write("empty", "");
  IndexReport provisional;
  IndexOptions with = options();
  with.on_provisional = [&](const IndexReport& report) { provisional = report; };
  const IndexReport report = index(with);
  EXPECT_EQ(provisional.generation, 1U);
  EXPECT_EQ(provisional.files, 2U);
  EXPECT_EQ(provisional.files_without_digest, 2U);
  EXPECT_TRUE(generation(1)->header().provisional);
  EXPECT_FALSE(generation(1)->xxh()[find(*generation(1), "a/file")].known());
  EXPECT_EQ(report.outcome, Outcome::kPublished);
  EXPECT_EQ(report.generation, 2U);
  EXPECT_EQ(report.entries, 3U);
  EXPECT_EQ(report.files, 2U);
  EXPECT_EQ(report.bytes, 7U);
  EXPECT_EQ(report.files_hashed, 2U);
  EXPECT_EQ(report.bytes_hashed, 7U);
  EXPECT_EQ(report.files_without_digest, 0U);
  EXPECT_EQ(live()->header().generation, 2U);
  EXPECT_FALSE(live()->header().provisional);
  expect_content("a/file", "content");
  expect_content("empty", "");
  expect_sound(*live());
}

TEST_F(Indexer, WritesNothingWhenNothingChanged) {
  tree_.write("a/file", "content");
  ASSERT_EQ(::symlink("a", tree_.path("link").c_str()), 0);
  const IndexReport first = index();
  struct stat before{};
  struct stat after{};
  ASSERT_EQ(::stat(catalogs_.path("module").c_str(), &before), 0);
  const IndexReport second = index();
  EXPECT_EQ(second.outcome, Outcome::kUnchanged);
  EXPECT_EQ(second.generation, first.generation);
  EXPECT_EQ(second.files_hashed, 0U);
  EXPECT_EQ(second.entries, 3U);
  ASSERT_EQ(::stat(catalogs_.path("module").c_str(), &after), 0);
  EXPECT_EQ(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
  EXPECT_EQ(before.st_mtim.tv_sec, after.st_mtim.tv_sec);
}

TEST_F(Indexer, ReadsOnlyWhatChanged) {
  for (const char* const name : {"a/1", "a/2", "b/1", "b/2", "c"}) {
    tree_.write(name, name);
  }
  index();
  tree_.write("a/2", "changed");
  tree_.write("a/new", "added");
  ASSERT_EQ(::unlink(tree_.path("b/1").c_str()), 0);
  ASSERT_EQ(::unlink(tree_.path("c").c_str()), 0);
  tree_.write("c/now-a-directory", "below");
  const IndexReport report = index();
  EXPECT_EQ(report.outcome, Outcome::kPublished);
  EXPECT_EQ(report.generation, 3U);
  EXPECT_EQ(report.files_hashed, 3U);
  EXPECT_EQ(paths(*live()), (std::set<std::string>{"a", "a/1", "a/2", "a/new", "b", "b/2", "c",
                                                   "c/now-a-directory"}));
  expect_content("a/1", "a/1");
  expect_content("a/2", "changed");
  expect_content("a/new", "added");
  expect_content("b/2", "b/2");
  expect_content("c/now-a-directory", "below");
  expect_sound(*live());
}

TEST_F(Indexer, IsNotDeceivedByAnMtimeThatWasSetBack) {
  tree_.write("file", "before");
  index();
  struct stat stat{};
  ASSERT_EQ(::stat(tree_.path("file").c_str(), &stat), 0);
  const UniqueFd fd(::open(tree_.path("file").c_str(), O_WRONLY | O_CLOEXEC));
  ASSERT_EQ(::pwrite(fd.get(), "after!", 6, 0), 6);
  const timespec times[2] = {stat.st_atim, stat.st_mtim};
  ASSERT_EQ(::futimens(fd.get(), times), 0);
  EXPECT_EQ(index().files_hashed, 1U);
  expect_content("file", "after!");
}

// Written right after it was hashed: in the same tick of the kernel's clock a change leaves no
// trace.
TEST_F(Indexer, SeesAWriteThatFollowsTheHashingAtOnce) {
  tree_.write("file", "00");
  index();
  const UniqueFd fd(::open(tree_.path("file").c_str(), O_WRONLY | O_CLOEXEC));
  for (int round = 1; round < 20; ++round) {
    const std::string content = {static_cast<char>('0' + round / 10),
                                 static_cast<char>('0' + round % 10)};
    ASSERT_EQ(::pwrite(fd.get(), content.data(), 2, 0), 2);
    index();
    expect_content("file", content);
  }
}

TEST_F(Indexer, PublishesWhenOnlyTheLocalPartChanged) {
  tree_.write("file", "content");
  tree_.write("z/other", "x");
  index();
  const hash::Sha256 root = live()->header().root;
  struct stat directory{};
  ASSERT_EQ(::stat(tree_.path().c_str(), &directory), 0);
  // A link that comes and goes moves the ctime and nothing that is digested.
  ASSERT_EQ(::link(tree_.path("file").c_str(), catalogs_.path("elsewhere").c_str()), 0);
  ASSERT_EQ(::unlink(catalogs_.path("elsewhere").c_str()), 0);
  const IndexReport report = index();
  EXPECT_EQ(report.outcome, Outcome::kPublished);
  EXPECT_EQ(live()->header().root, root);
  expect_content("file", "content");
  EXPECT_EQ(index().outcome, Outcome::kUnchanged);
}

TEST_F(Indexer, GivesTheSameRootOnEveryHost) {
  tests::TempTree other;
  for (const tests::TempTree* const tree :
       std::initializer_list<const tests::TempTree*>{&tree_, &other}) {
    tree->write("b/file", "content");
    tree->write("a", "leads");
    ASSERT_EQ(::link(tree->path("a").c_str(), tree->path("z").c_str()), 0);
    const timespec times[2] = {{.tv_sec = 5, .tv_nsec = 6}, {.tv_sec = 7, .tv_nsec = 8}};
    for (const char* const path : {"b/file", "a", "b", ""}) {
      ASSERT_EQ(::utimensat(AT_FDCWD, tree->path(path).c_str(), times, 0), 0);
    }
  }
  index();
  const hash::Sha256 first = live()->header().root;
  IndexOptions with = options();
  with.root_fd = other.fd();
  EXPECT_EQ(index(with).outcome, Outcome::kPublished);
  EXPECT_EQ(live()->header().root, first);
}

TEST_F(Indexer, TakesEveryKindOfEntry) {
  tree_.make_directory("empty");
  tree_.write("zero", "");
  tree_.write("name\xff\n", "x");
  ASSERT_EQ(::symlink("empty", tree_.path("link-to-directory").c_str()), 0);
  ASSERT_EQ(::symlink("/nowhere", tree_.path("dangling").c_str()), 0);
  ASSERT_EQ(::truncate(tree_.path("zero").c_str(), 0), 0);
  tree_.write("sparse", "begin");
  ASSERT_EQ(::truncate(tree_.path("sparse").c_str(), 3 << 20), 0);
  ASSERT_EQ(::chmod(tree_.path("zero").c_str(), 06751), 0);
  const IndexReport report = index();
  EXPECT_EQ(report.left_out, 0U);
  const auto catalog = live();
  EXPECT_EQ(paths(*catalog), (std::set<std::string>{"empty", "zero", "name\xff\n", "dangling",
                                                    "link-to-directory", "sparse"}));
  EXPECT_EQ(catalog->table().target(find(*catalog, "link-to-directory")), "empty");
  EXPECT_EQ(catalog->table().record(find(*catalog, "zero")).mode, 06751);
  EXPECT_TRUE(catalog->table().record(find(*catalog, "empty")).is_directory());
  std::string sparse(3 << 20, '\0');
  sparse.replace(0, 5, "begin");
  expect_content("sparse", sparse);
  expect_content("zero", "");
  expect_sound(*catalog);
}

TEST_F(Indexer, LetsTheFirstPathInPreorderLeadAHardLinkGroup) {
  tree_.write("m/file", "content");
  ASSERT_EQ(::link(tree_.path("m/file").c_str(), tree_.path("a").c_str()), 0);
  ASSERT_EQ(::link(tree_.path("m/file").c_str(), tree_.path("z").c_str()), 0);
  tree_.write("other", "outside link");
  ASSERT_EQ(::link(tree_.path("other").c_str(), catalogs_.path("outside").c_str()), 0);
  const IndexReport report = index();
  EXPECT_EQ(report.files_hashed, 2U);
  EXPECT_EQ(report.bytes, 7U + 12U);
  const auto catalog = live();
  const uint32_t first = find(*catalog, "a");
  EXPECT_FALSE(catalog->table().record(first).is_hard_link());
  EXPECT_EQ(catalog->table().record(find(*catalog, "m/file")).link_or_files, first);
  EXPECT_EQ(catalog->table().record(find(*catalog, "z")).link_or_files, first);
  EXPECT_FALSE(catalog->table().record(find(*catalog, "other")).is_hard_link());
  for (const char* const path : {"a", "m/file", "z"}) {
    expect_content(path, "content");
  }
  expect_sound(*catalog);
  EXPECT_EQ(index().outcome, Outcome::kUnchanged);
  ASSERT_EQ(::unlink(tree_.path("a").c_str()), 0);
  index();
  EXPECT_EQ(live()->table().record(find(*live(), "z")).link_or_files, find(*live(), "m/file"));
  expect_content("z", "content");
}

TEST_F(Indexer, ExcludesByPatternAndAlwaysItsOwnDirectory) {
  tree_.write(".superlifter/state", "x");
  tree_.write("sub/.superlifter/kept", "x");
  tree_.write("private/secret", "x");
  tree_.write("a.tmp", "x");
  tree_.write("sub/b.tmp", "x");
  IndexOptions with = options();
  with.exclude.push_back(*Glob::parse("/private/"));
  with.exclude.push_back(*Glob::parse("*.tmp"));
  const IndexReport report = index(with);
  EXPECT_EQ(report.left_out, 0U);
  EXPECT_EQ(paths(*live()),
            (std::set<std::string>{"sub", "sub/.superlifter", "sub/.superlifter/kept"}));
}

TEST_F(Indexer, LeavesItsCatalogOutWhereItLiesBelowTheRoot) {
  tree_.write("file", "content");
  tree_.make_directory("cache/catalog");
  const UniqueFd catalog(
      ::open(tree_.path("cache/catalog").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  IndexOptions with = options();
  with.catalog_fd = catalog.get();
  const IndexReport report = index(with);
  EXPECT_EQ(report.entries, 2U);  // cache and file.
  EXPECT_EQ(index(with).outcome, Outcome::kUnchanged);
}

TEST_F(Indexer, PublishesNothingWhileAPathHolds) {
  IndexOptions with = options();
  with.hold_while.push_back(*Glob::parse("/Update-in-progress-*"));
  with.exclude.push_back(*Glob::parse("/Update-*"));  // Held all the same.
  tree_.write("Update-in-progress-host", "");
  tree_.write("file", "content");
  IndexReport report = index(with);
  EXPECT_EQ(report.outcome, Outcome::kHeld);
  EXPECT_EQ(report.held_by, "Update-in-progress-host");
  EXPECT_EQ(report.generation, 0U);
  EXPECT_EQ(read_current(module_fd()).value_or(9), 0U);
  ASSERT_EQ(::unlink(tree_.path("Update-in-progress-host").c_str()), 0);
  EXPECT_EQ(index(with).outcome, Outcome::kPublished);
  tree_.write("Update-in-progress-host", "");
  tree_.write("file", "half of an update");
  report = index(with);
  EXPECT_EQ(report.outcome, Outcome::kHeld);
  EXPECT_EQ(report.generation, 2U);
  EXPECT_EQ(live()->header().generation, 2U);
}

TEST_F(Indexer, IsHeldByAPathThatComesWhileItHashes) {
  IndexOptions with = options();
  with.hold_while.push_back(*Glob::parse("busy"));
  with.on_provisional = [this](const IndexReport&) { tree_.write("sub/busy", ""); };
  tree_.write("sub/file", "content");
  const IndexReport report = index(with);
  EXPECT_EQ(report.outcome, Outcome::kHeld);
  EXPECT_EQ(report.held_by, "sub/busy");
  EXPECT_TRUE(live()->header().provisional);
  // What was hashed is not lost.
  ASSERT_EQ(::unlink(tree_.path("sub/busy").c_str()), 0);
  with.on_provisional = nullptr;
  EXPECT_EQ(index(with).files_hashed, 0U);
  expect_content("sub/file", "content");
}

TEST_F(Indexer, TakesAFileAsItIsWhenItIsHashed) {
  tree_.write("file", "before");
  tree_.write("group", "before");
  ASSERT_EQ(::link(tree_.path("group").c_str(), tree_.path("link").c_str()), 0);
  const IndexReport report = index_while([this] {
    tree_.write("file", "after the walk");
    tree_.write("group", "after the walk too");
  });
  EXPECT_EQ(report.files_without_digest, 0U);
  EXPECT_EQ(report.bytes, 14U + 18U);
  expect_content("file", "after the walk");
  expect_content("group", "after the walk too");
  expect_content("link", "after the walk too");
  expect_sound(*live());
  EXPECT_EQ(index().outcome, Outcome::kUnchanged);
}

TEST_F(Indexer, LeavesOutWhatVanishesBeforeItIsHashed) {
  tree_.write("a", "1");
  tree_.write("d/b", "22");
  tree_.write("d/c", "333");
  tree_.write("e", "4444");
  const IndexReport report = index_while([this] {
    ASSERT_EQ(::unlink(tree_.path("a").c_str()), 0);
    ASSERT_EQ(::unlink(tree_.path("d/b").c_str()), 0);
    tree_.make_directory("d/b");
    ASSERT_EQ(::unlink(tree_.path("e").c_str()), 0);
    ASSERT_EQ(::symlink("d/c", tree_.path("e").c_str()), 0);
  });
  EXPECT_EQ(report.left_out, 0U);
  EXPECT_EQ(report.files, 1U);
  EXPECT_EQ(report.bytes, 3U);
  EXPECT_EQ(paths(*live()), (std::set<std::string>{"d", "d/c"}));
  expect_sound(*live());
  index();
  EXPECT_EQ(paths(*live()), (std::set<std::string>{"d", "d/b", "d/c", "e"}));
}

TEST_F(Indexer, MendsAHardLinkGroupWhoseFirstNameVanishes) {
  tree_.write("a", "content");
  for (const char* const name : {"b", "c"}) {
    ASSERT_EQ(::link(tree_.path("a").c_str(), tree_.path(name).c_str()), 0);
  }
  IndexReport report = index_while([this] { ASSERT_EQ(::unlink(tree_.path("a").c_str()), 0); });
  EXPECT_EQ(report.files_without_digest, 1U);  // Nobody has read it by its other names yet.
  EXPECT_EQ(paths(*live()), (std::set<std::string>{"b", "c"}));
  EXPECT_EQ(live()->table().record(find(*live(), "c")).link_or_files, find(*live(), "b"));
  expect_sound(*live());
  report = index();
  EXPECT_EQ(report.files_without_digest, 0U);
  expect_content("b", "content");
  expect_content("c", "content");
}

TEST_F(Indexer, MendsAHardLinkGroupWhoseFirstNameIsAnotherFileNow) {
  tree_.write("a", "content");
  ASSERT_EQ(::link(tree_.path("a").c_str(), tree_.path("b").c_str()), 0);
  index_while([this] {
    tree_.write("new", "replaced");
    ASSERT_EQ(::rename(tree_.path("new").c_str(), tree_.path("a").c_str()), 0);
  });
  expect_content("a", "replaced");
  EXPECT_FALSE(live()->table().record(find(*live(), "b")).is_hard_link());
  EXPECT_FALSE(live()->xxh()[find(*live(), "b")].known());
  expect_sound(*live());
  index();
  expect_content("b", "content");
}

TEST_F(Indexer, GivesNoDigestToAFileThatKeepsChangingAndTriesAgain) {
  tree_.write("restless", "");
  tree_.write("calm", "content");
  // Large, so that each reading of it takes far longer than the pause between two changes.
  ASSERT_EQ(::truncate(tree_.path("restless").c_str(), 512 << 20), 0);
  std::atomic<bool> done = false;
  std::jthread writer([&] {
    const UniqueFd fd(::open(tree_.path("restless").c_str(), O_WRONLY | O_CLOEXEC));
    for (uint8_t i = 1; !done; ++i) {
      EXPECT_EQ(::pwrite(fd.get(), &i, 1, 0), 1);
    }
  });
  const IndexReport report = index();
  done = true;
  writer.join();
  EXPECT_EQ(report.outcome, Outcome::kPublished);
  EXPECT_EQ(report.files_without_digest, 1U);
  EXPECT_EQ(report.files_hashed, 1U);
  EXPECT_FALSE(live()->xxh()[find(*live(), "restless")].known());
  EXPECT_EQ(live()->table().record(find(*live(), "restless")).size_bytes, 512U << 20);
  expect_content("calm", "content");
  const IndexReport again = index();
  EXPECT_EQ(again.files_hashed, 1U);
  EXPECT_EQ(again.files_without_digest, 0U);
}

TEST_F(Indexer, StopsInsideALargeFileAndKeepsWhatItHas) {
  tree_.write("large", "");
  ASSERT_EQ(::truncate(tree_.path("large").c_str(), int64_t{16} << 30), 0);
  tree_.write("small", "content");
  std::atomic<bool> stop = false;
  IndexOptions with = options();
  with.stop = &stop;
  with.on_progress = [&](const IndexOptions::Progress& progress) {
    if (progress.files_hashed == 1 && progress.bytes_hashed > 7) stop = true;
  };
  const Result<IndexReport> stopped = index_module(with);
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, Errc::kClosed);
  EXPECT_TRUE(live()->header().provisional);
  EXPECT_TRUE(std::filesystem::exists(catalogs_.path("module/digests.journal")));
  ASSERT_EQ(::truncate(tree_.path("large").c_str(), 1), 0);
  const IndexReport report = index();
  EXPECT_EQ(report.files_hashed, 1U);  // The small one's digests were in the journal.
  expect_content("small", "content");
  expect_content("large", std::string(1, '\0'));
  EXPECT_FALSE(std::filesystem::exists(catalogs_.path("module/digests.journal")));
}

TEST_F(Indexer, StopsBeforeItBegins) {
  tree_.write("file", "content");
  const std::atomic<bool> stop = true;
  IndexOptions with = options();
  with.stop = &stop;
  const Result<IndexReport> stopped = index_module(with);
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, Errc::kClosed);
  EXPECT_EQ(read_current(module_fd()).value_or(9), 0U);
}

TEST_F(Indexer, TrustsTheJournalForExactlyThatVersion) {
  tree_.write("file", "content");
  tree_.write("other", "content");
  struct stat stat{};
  ASSERT_EQ(::mkdir(catalogs_.path("module").c_str(), 0755), 0);
  {
    Result<Journal> journal = Journal::open(module_fd());
    ASSERT_TRUE(journal);
    JournalRecord record;
    record.xxh.bytes.fill(1);
    record.sha.bytes.fill(2);
    ASSERT_EQ(::stat(tree_.path("file").c_str(), &stat), 0);
    record.device = stat.st_dev;
    record.validators = fs::to_validators(stat);
    journal->append(record);
    ASSERT_EQ(::stat(tree_.path("other").c_str(), &stat), 0);
    record.validators = fs::to_validators(stat);
    record.validators.ctime_ns ^= 1;
    journal->append(record);
    journal->flush();
  }
  EXPECT_EQ(index().files_hashed, 1U);
  EXPECT_EQ(live()->sha()[find(*live(), "file")].bytes[0], 2);
  expect_content("other", "content");
}

TEST_F(Indexer, LeavesOutSpecialFilesAndPathsThatAreTooLong) {
  ASSERT_EQ(::mkfifo(tree_.path("fifo").c_str(), 0644), 0);
  // 15 names of 255 bytes and their slashes are 3,840; the next name decides.
  UniqueFd at(::dup(tree_.fd()));
  const std::string name(255, 'd');
  for (int i = 0; i < 15; ++i) {
    ASSERT_EQ(::mkdirat(at.get(), name.c_str(), 0755), 0);
    at = UniqueFd(::openat(at.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  const std::string fits(255, 'f');  // 4,095 in all.
  const std::string directory(254, 'g');
  for (const std::string& file : {fits}) {
    const UniqueFd fd(::openat(at.get(), file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    ASSERT_EQ(::write(fd.get(), "x", 1), 1);
  }
  ASSERT_EQ(::mkdirat(at.get(), directory.c_str(), 0755), 0);
  const UniqueFd below(::openat(at.get(), directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const UniqueFd too_long(::openat(below.get(), "h", O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  ASSERT_TRUE(too_long.valid());
  const IndexReport report = index();
  EXPECT_EQ(report.left_out, 2U);
  EXPECT_EQ(report.entries, 17U);
  EXPECT_EQ(report.files_hashed, 1U);
  const uint32_t last = live()->table().count() - 2;
  EXPECT_EQ(live()->table().path(last).size(), kMaxPathBytes);
  EXPECT_TRUE(live()->xxh()[last].known());
  // The tree is deeper than a path may be: take its end away by fd.
  ASSERT_EQ(::unlinkat(below.get(), "h", 0), 0);
}

TEST_F(Indexer, FailsAndKeepsTheGenerationWhenTheRootIsGone) {
  tree_.write("root/file", "content");
  const UniqueFd root(::open(tree_.path("root").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  IndexOptions with = options();
  with.root_fd = root.get();
  index(with);
  std::filesystem::remove_all(tree_.path("root"));
  const Result<IndexReport> report = index_module(with);
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, Errc::kNotFound);
  EXPECT_NE(report.error().message.find("module"), std::string::npos);
  EXPECT_EQ(live()->header().generation, 2U);
  EXPECT_EQ(paths(*live()), std::set<std::string>{"file"});
}

TEST_F(Indexer, IsRefusedWhileAnotherWrites) {
  const Result<Publisher> writer = Publisher::open(catalogs_.fd(), "module");
  ASSERT_TRUE(writer);
  const Result<IndexReport> report = index_module(options());
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, Errc::kBusy);
}

TEST_F(Indexer, MakesADamagedCatalogAnew) {
  tree_.write("file", "content");
  index();
  std::string file = catalogs_.read("module/2.generation");
  file[4100] = static_cast<char>(file[4100] ^ 0x40);
  catalogs_.write("module/2.generation", file);
  const IndexReport report = index();
  EXPECT_EQ(report.generation, 4U);  // A provisional one came before it.
  EXPECT_EQ(report.files_hashed, 1U);
  expect_content("file", "content");
}

TEST_F(Indexer, RecordsOwnersOnlyWhereAsked) {
  tree_.write("file", "content");
  const bool is_root = ::geteuid() == 0;
  if (is_root) {
    ASSERT_EQ(::chown(tree_.path("file").c_str(), 3'999'999, 3'999'998), 0);
  }
  index();
  EXPECT_FALSE(live()->header().has_owners);
  IndexOptions with = options();
  with.owners = true;
  EXPECT_EQ(index(with).outcome, Outcome::kPublished);
  const auto catalog = live();
  EXPECT_TRUE(catalog->header().has_owners);
  const passwd* const user = ::getpwuid(::geteuid());
  const std::string own_name = user != nullptr ? user->pw_name : std::to_string(::geteuid());
  EXPECT_EQ(catalog->header().root_metadata.owner, own_name);
  const tree::Record& record = catalog->table().record(find(*catalog, "file"));
  EXPECT_EQ(catalog->table().owner_name(record.owner), is_root ? "3999999" : own_name);
  if (is_root) {
    EXPECT_EQ(catalog->table().owner_name(record.group), "3999998");
  }
  expect_sound(*catalog);
  EXPECT_EQ(index(with).outcome, Outcome::kUnchanged);
  EXPECT_EQ(index().outcome, Outcome::kPublished);
}

// Permission bits do not stop root, so this pass runs as somebody else, in a child; its exit status
// tells which check failed.
TEST_F(Indexer, LeavesOutWhatItMayNotReadBeforeOrAfterTheWalk) {
  ASSERT_EQ(::chmod(tree_.path().c_str(), 0777), 0);
  ASSERT_EQ(::chmod(catalogs_.path().c_str(), 0777), 0);
  tree_.write("locked-directory/file", "x");
  tree_.write("locked-file", "x");
  tree_.write("open", "content");
  ASSERT_EQ(::chmod(tree_.path("locked-directory").c_str(), 0), 0);
  ASSERT_EQ(::chmod(tree_.path("locked-file").c_str(), 0), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (::geteuid() == 0 && (::setegid(65534) != 0 || ::seteuid(65534) != 0)) ::_exit(1);
    tree_.write("later", "x");
    IndexOptions with = options();
    with.threads = 1;
    std::set<std::string> provisional;
    with.on_provisional = [&](const IndexReport&) {
      provisional = paths(*live());
      if (::chmod(tree_.path("later").c_str(), 0) != 0) ::_exit(2);
    };
    const Result<IndexReport> report = index_module(with);
    if (!report) ::_exit(3);
    if (provisional != std::set<std::string>{"later", "open"}) ::_exit(4);
    if (paths(*live()) != std::set<std::string>{"open"}) ::_exit(5);
    if (report->left_out != 3) ::_exit(6);
    const Result<IndexReport> again = index_module(with);
    if (!again || again->outcome != Outcome::kUnchanged || again->left_out != 3) ::_exit(7);
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  ASSERT_EQ(::chmod(tree_.path("locked-directory").c_str(), 0755), 0);
}

TEST_F(Indexer, KeepsAndDropsGenerationsAsTold) {
  IndexOptions with = options();
  with.keep_generations = 2;
  for (int i = 0; i < 4; ++i) {
    tree_.write("file", std::to_string(i));
    index(with);
  }
  EXPECT_EQ(live()->header().generation, 5U);
  EXPECT_TRUE(std::filesystem::exists(catalogs_.path("module/4.generation")));
  EXPECT_FALSE(std::filesystem::exists(catalogs_.path("module/3.generation")));
}

TEST_F(Indexer, TakesADirectoryOf100000Entries) {
  tree_.make_directory("large");
  const UniqueFd large(::open(tree_.path("large").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (int i = 0; i < 100'000; ++i) {
    ASSERT_EQ(::mknodat(large.get(), std::to_string(i).c_str(), S_IFREG | 0644, 0), 0);
  }
  const IndexReport report = index();
  EXPECT_EQ(report.files_hashed, 100'000U);
  expect_sound(*live());
  EXPECT_EQ(index().outcome, Outcome::kUnchanged);
  tree_.write("large/50000a", "one more");
  EXPECT_EQ(index().files_hashed, 1U);
  expect_content("large/50000a", "one more");
  expect_content("large/99999", "");
}

TEST_F(Indexer, ReportsProgressFromTheCallingThread) {
  for (int i = 0; i < 10; ++i) {
    tree_.write(std::to_string(i), "content");
  }
  const std::thread::id caller = std::this_thread::get_id();
  IndexOptions with = options();
  with.on_progress = [&](const IndexOptions::Progress& progress) {
    EXPECT_EQ(std::this_thread::get_id(), caller);
    EXPECT_LE(progress.files_hashed, progress.files_to_hash);
    EXPECT_LE(progress.bytes_hashed, progress.bytes_to_hash);
  };
  EXPECT_EQ(index(with).files_hashed, 10U);
}

}  // namespace
}  // namespace superlifter::catalog
