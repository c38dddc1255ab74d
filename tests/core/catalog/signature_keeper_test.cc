// signature_keeper: signatures through whole passes: made, kept by content, carried along,
// collected, and done without where the disk is full.
#include "core/catalog/signature_keeper.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <set>
#include <string>

#include "core/catalog/format.h"
#include "core/catalog/indexer.h"
#include "core/catalog/publisher.h"
#include "tests/support/temp_tree.h"

namespace superlifter::catalog {
namespace {

using Outcome = IndexReport::Outcome;

// Bytes of no pattern, the same for the same seed.
std::string noise(size_t size, uint64_t seed) {
  std::string out(size, '\0');
  uint64_t state = seed * 0x9E37'79B9'7F4A'7C15U + 1;
  for (char& byte : out) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    byte = static_cast<char>(state >> 32);
  }
  return out;
}

class Signatures : public testing::Test {
 protected:
  IndexOptions options(unsigned level = delta::kLeafLevel) const {
    IndexOptions out;
    out.module = "module";
    out.root_fd = tree_.fd();
    out.catalog_fd = catalogs_.fd();
    out.threads = 2;
    out.signature_level = level;
    return out;
  }
  static IndexReport index(const IndexOptions& options) {
    const Result<IndexReport> report = index_module(options);
    EXPECT_TRUE(report) << (report ? "" : report.error().message);
    return report.value_or(IndexReport());
  }
  IndexReport index(unsigned level = delta::kLeafLevel) const { return index(options(level)); }

  UniqueFd module_fd() const {
    return UniqueFd(::open(catalogs_.path("module").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  std::shared_ptr<const Catalog> live() const {
    const UniqueFd directory = module_fd();
    const auto catalog = Catalog::open(
        directory.get(), generation_file_name(read_current(directory.get()).value_or(0)),
        Verify::kEverything);
    CHECK(catalog.has_value());
    return *catalog;
  }
  std::optional<SignaturePlace> place(std::string_view path) const {
    const auto catalog = live();
    const uint32_t entry = catalog->table().find(path);
    CHECK(entry != tree::kNoEntry);
    return catalog->signature(entry);
  }
  // The live generation keeps the sums of that content, at every level, at the path.
  void expect_signature(std::string_view path, std::string_view content) const {
    const std::optional<SignaturePlace> at = place(path);
    ASSERT_TRUE(at.has_value()) << path;
    const std::string pack = catalogs_.read("module/" + pack_name());
    for (unsigned level = at->layout.finest_level(); level <= at->layout.coarsest_level();
         level += delta::kLevelStep) {
      Bytes expected;
      delta::append_sums(as_bytes(content), level, delta::kMostWidth, expected);
      const uint64_t begin = at->offset + at->layout.offset_of(level, 0);
      ASSERT_LE(begin + expected.size(), pack.size()) << path;
      EXPECT_EQ(as_text(expected), std::string_view(pack).substr(begin, expected.size()))
          << path << " level " << level;
    }
  }
  std::string pack_name() const { return pack_file_name(live()->header().pack); }
  std::set<std::string> packs() const {
    std::set<std::string> out;
    for (const auto& entry : std::filesystem::directory_iterator(catalogs_.path("module"))) {
      const std::string name = entry.path().filename().string();
      if (name.ends_with(kPackSuffix)) out.insert(name);
    }
    return out;
  }
  uint64_t pack_size() const {
    return std::filesystem::file_size(catalogs_.path("module/" + pack_name()));
  }

  tests::TempTree tree_;
  tests::TempTree catalogs_;
};

TEST_F(Signatures, AreTheSumsOfEachFileAtEachLevel) {
  std::vector<std::pair<std::string, std::string>> files;
  for (const size_t size : {2048U, 2049U, 3071U, 32'767U, 32'768U, 100'000U, (1U << 20) - 1,
                            (1U << 20) + 1, 9'000'001U}) {
    files.emplace_back("f" + std::to_string(size), noise(size, size));
    tree_.write(files.back().first, files.back().second);
  }
  tree_.write("small", noise(2047, 1));
  tree_.write("empty", "");
  tree_.make_directory("directory");
  const IndexReport report = index();
  EXPECT_EQ(live()->header().signature_level, delta::kLeafLevel);
  for (const auto& [path, content] : files)
    expect_signature(path, content);
  for (const char* const path : {"small", "empty", "directory"})
    EXPECT_FALSE(place(path).has_value()) << path;
  EXPECT_EQ(packs(), std::set<std::string>{"1.signatures"});
  EXPECT_EQ(report.pack_bytes, pack_size());
  EXPECT_EQ(report.signature_bytes, report.pack_bytes - kPackHeaderBytes);  // Nothing is garbage.
  EXPECT_LE(report.pack_bytes, report.bytes * 15 / 1000);
}

TEST_F(Signatures, AreMadeAtTheLevelThatIsAskedFor) {
  const std::string content = noise(1 << 20, 1);
  tree_.write("file", content);
  tree_.write("two-leaves", noise(2048, 2));
  for (const unsigned level : {10U, 12U, 14U, 16U, 12U}) {
    const IndexReport report = index(level);
    EXPECT_EQ(report.outcome, Outcome::kPublished);
    EXPECT_EQ(live()->header().signature_level, level);
    expect_signature("file", content);
    EXPECT_EQ(place("two-leaves").has_value(), level == 10);
    EXPECT_EQ(index(level).outcome, Outcome::kUnchanged);
  }
  EXPECT_EQ(index(0).outcome, Outcome::kPublished);
  EXPECT_EQ(live()->header().pack, 0U);
  EXPECT_FALSE(place("file").has_value());
  const IndexReport off = index(0);
  EXPECT_EQ(off.outcome, Outcome::kUnchanged);
  EXPECT_EQ(off.pack_bytes, 0U);
}

TEST_F(Signatures, OfEqualContentAreKeptOnce) {
  const std::string small = noise(50'000, 1);
  const std::string large = noise(9'000'000, 2);
  for (const char* const name : {"a", "b", "d/c"}) {
    tree_.write(std::string(name) + "-small", small);
    tree_.write(std::string(name) + "-large", large);
  }
  ASSERT_EQ(::link(tree_.path("a-small").c_str(), tree_.path("link").c_str()), 0);
  IndexOptions with = options();
  with.threads = 1;
  index(with);
  const uint64_t once = 2 * kPackChecksumBytes + delta::SignatureLayout(50'000, 10).size_bytes() +
                        delta::SignatureLayout(9'000'000, 10).size_bytes();
  EXPECT_EQ(live()->header().signature_bytes, once);
  EXPECT_EQ(pack_size(), kPackHeaderBytes + once);
  EXPECT_EQ(place("a-small")->offset, place("d/c-small")->offset);
  EXPECT_EQ(place("a-small")->offset, place("link")->offset);
  EXPECT_EQ(place("b-large")->offset, place("d/c-large")->offset);
  expect_signature("link", small);
  expect_signature("b-large", large);
}

// Two threads that read the same content at the same time.
TEST_F(Signatures, OfEqualContentAreKeptOnceWhateverTheThreadsDo) {
  const std::string large = noise(9'000'000, 2);
  for (int i = 0; i < 12; ++i)
    tree_.write(std::to_string(i), large);
  IndexOptions with = options();
  with.threads = 4;
  index(with);
  std::set<uint64_t> offsets;
  for (int i = 0; i < 12; ++i)
    offsets.insert(place(std::to_string(i))->offset);
  EXPECT_EQ(offsets.size(), 1U);
  expect_signature("7", large);
}

TEST_F(Signatures, SurviveRenamesAndNewGenerations) {
  const std::string small = noise(50'000, 1);
  const std::string large = noise(9'000'000, 2);
  tree_.write("small", small);
  tree_.write("large", large);
  index();
  const uint64_t size = pack_size();
  const uint64_t small_at = place("small")->offset;
  tree_.make_directory("moved");
  ASSERT_EQ(::rename(tree_.path("small").c_str(), tree_.path("moved/small").c_str()), 0);
  ASSERT_EQ(::rename(tree_.path("large").c_str(), tree_.path("moved/large").c_str()), 0);
  tree_.write("copy", large);
  EXPECT_EQ(index().files_hashed, 3U);
  EXPECT_EQ(pack_size(), size);
  EXPECT_EQ(place("moved/small")->offset, small_at);
  expect_signature("moved/large", large);
  expect_signature("copy", large);
  tree_.write("other", noise(4000, 3));
  EXPECT_EQ(index().files_hashed, 1U);
  EXPECT_EQ(packs(), std::set<std::string>{"1.signatures"});
  expect_signature("moved/small", small);
}

TEST_F(Signatures, NeedNoFileToBeReadThatDidNotChange) {
  for (int i = 0; i < 20; ++i)
    tree_.write(std::to_string(i), noise(10'000, static_cast<uint64_t>(i)));
  const IndexReport first = index();
  const IndexReport second = index();
  EXPECT_EQ(second.outcome, Outcome::kUnchanged);
  EXPECT_EQ(second.files_hashed, 0U);
  EXPECT_EQ(second.signature_bytes, first.signature_bytes);
  EXPECT_EQ(second.pack_bytes, first.pack_bytes);
}

TEST_F(Signatures, OfAFileThatChangedMeanwhileAreThoseOfWhatWasRead) {
  tree_.write("file", noise(100'000, 1));
  tree_.write("shrinks", noise(100'000, 2));
  IndexOptions with = options();
  const std::string after = noise(60'000, 3);
  with.on_provisional = [&](const IndexReport&) {
    tree_.write("file", after);
    tree_.write("shrinks", "small now");
  };
  index(with);
  expect_signature("file", after);
  EXPECT_FALSE(place("shrinks").has_value());
  EXPECT_EQ(index().outcome, Outcome::kUnchanged);
}

TEST_F(Signatures, LeaveGarbageUntilAQuarterOfThePackIsAndThenAreCopied) {
  // 20 files of 8 MiB of content have 1.7 MB of sums.
  const auto content = [](int i, uint64_t round) {
    return noise(8 << 20, static_cast<uint64_t>(i) + 100 * round);
  };
  for (int i = 0; i < 20; ++i)
    tree_.write(std::to_string(i), content(i, 0));
  index();
  const uint64_t whole = pack_size();
  for (int i = 0; i < 5; ++i)
    tree_.write(std::to_string(i), content(i, 1));
  index();
  EXPECT_EQ(pack_name(), "1.signatures");  // 0.4 MB of garbage.
  EXPECT_GT(pack_size(), whole);
  for (int i = 5; i < 16; ++i)
    ASSERT_EQ(::unlink(tree_.path(std::to_string(i)).c_str()), 0);
  IndexReport report = index();
  EXPECT_EQ(pack_name(), "2.signatures");
  EXPECT_EQ(report.pack_bytes, pack_size());
  EXPECT_EQ(report.signature_bytes, pack_size() - kPackHeaderBytes);
  EXPECT_LT(pack_size(), whole / 2);
  for (int i = 0; i < 5; ++i)
    expect_signature(std::to_string(i), content(i, 1));
  expect_signature("19", content(19, 0));
  // The generations before still have theirs.
  EXPECT_EQ(packs(), (std::set<std::string>{"1.signatures", "2.signatures"}));
  EXPECT_EQ(index().outcome, Outcome::kUnchanged);
  IndexOptions with = options();
  with.keep_generations = 1;
  tree_.write("new", noise(5000, 1));
  report = index(with);
  EXPECT_EQ(report.files_hashed, 1U);
  EXPECT_EQ(packs(), std::set<std::string>{"2.signatures"});
  expect_signature("19", content(19, 0));
}

TEST_F(Signatures, ThatAreDamagedAreNotCopiedButMadeAgain) {
  for (int i = 0; i < 20; ++i)
    tree_.write(std::to_string(i), noise(8 << 20, static_cast<uint64_t>(i)));
  index();
  {
    const UniqueFd pack(
        ::open(catalogs_.path("module/1.signatures").c_str(), O_WRONLY | O_CLOEXEC));
    const off_t at = static_cast<off_t>(place("19")->offset) + 1000;
    ASSERT_EQ(::pwrite(pack.get(), "damage", 6, at), 6);
  }
  for (int i = 0; i < 16; ++i)
    ASSERT_EQ(::unlink(tree_.path(std::to_string(i)).c_str()), 0);
  EXPECT_EQ(index().files_hashed, 0U);
  EXPECT_EQ(pack_name(), "2.signatures");
  EXPECT_FALSE(place("19").has_value());
  expect_signature("18", noise(8 << 20, 18));
  EXPECT_EQ(index().files_hashed, 1U);
  expect_signature("19", noise(8 << 20, 19));
}

TEST_F(Signatures, AreMadeAgainWhenThePackIsMissingOrDamaged) {
  const std::string content = noise(100'000, 1);
  tree_.write("file", content);
  index();
  const auto breaks = std::to_array<void (*)(const std::string&)>({
      [](const std::string& path) { ASSERT_EQ(::unlink(path.c_str()), 0); },
      [](const std::string& path) { ASSERT_EQ(::truncate(path.c_str(), 100), 0); },
      [](const std::string& path) { ASSERT_EQ(::truncate(path.c_str(), 0), 0); },
      [](const std::string& path) {
        const UniqueFd pack(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
        ASSERT_EQ(::pwrite(pack.get(), "x", 1, 3), 1);
      },
  });
  for (const auto break_pack : breaks) {
    break_pack(catalogs_.path("module/" + pack_name()));
    const IndexReport report = index();
    EXPECT_EQ(report.outcome, Outcome::kPublished);
    EXPECT_EQ(report.files_hashed, 1U);
    expect_signature("file", content);
    EXPECT_EQ(index().outcome, Outcome::kUnchanged);
  }
}

TEST_F(Signatures, OfAHashingThatWasInterruptedAreNotMadeAgain) {
  std::vector<std::string> contents;
  for (int i = 0; i < 20; ++i) {
    contents.push_back(noise(30'000, static_cast<uint64_t>(i)));
    tree_.write("f" + std::to_string(i), contents.back());
  }
  tree_.write("z-large", "");
  ASSERT_EQ(::truncate(tree_.path("z-large").c_str(), int64_t{16} << 30), 0);
  std::atomic<bool> stop = false;
  IndexOptions with = options();
  with.stop = &stop;
  with.on_progress = [&](const IndexOptions::Progress& progress) {
    if (progress.files_hashed == 20) stop = true;
  };
  EXPECT_FALSE(index_module(with));
  EXPECT_TRUE(live()->header().provisional);
  EXPECT_EQ(live()->header().pack, 0U);
  ASSERT_EQ(::unlink(tree_.path("z-large").c_str()), 0);
  // A provisional generation is published on the way: it must not take the pack away.
  tree_.write("new", noise(30'000, 99));
  EXPECT_EQ(index().files_hashed, 1U);
  for (int i = 0; i < 20; ++i)
    expect_signature("f" + std::to_string(i), contents[static_cast<size_t>(i)]);
}

// What the journal says of a pack is believed only where the pack bears it out.
TEST_F(Signatures, ThatDidNotReachTheDiskAreMadeAgain) {
  tree_.write("a", noise(30'000, 1));
  tree_.write("b", noise(30'000, 2));
  tree_.write("c", noise(30'000, 3));
  IndexOptions with = options();
  with.threads = 1;
  with.hold_while.push_back(*Glob::parse("busy"));
  with.on_provisional = [this](const IndexReport&) { tree_.write("busy", ""); };
  EXPECT_EQ(index(with).outcome, Outcome::kHeld);
  const std::string path = catalogs_.path("module/1.signatures");
  const auto size = static_cast<off_t>(std::filesystem::file_size(path));
  // The last is cut, the first overwritten; the one between stays.
  ASSERT_EQ(::truncate(path.c_str(), size - 8), 0);
  {
    const UniqueFd pack(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    ASSERT_EQ(::pwrite(pack.get(), "damage", 6, 40), 6);
  }
  ASSERT_EQ(::unlink(tree_.path("busy").c_str()), 0);
  with.on_provisional = nullptr;
  EXPECT_EQ(index(with).files_hashed, 2U);
  expect_signature("a", noise(30'000, 1));
  expect_signature("b", noise(30'000, 2));
  expect_signature("c", noise(30'000, 3));
  EXPECT_EQ(index().outcome, Outcome::kUnchanged);
}

TEST_F(Signatures, OfAGenerationStayWhenThePassAfterItIsHeld) {
  const std::string content = noise(100'000, 1);
  tree_.write("file", content);
  index();
  IndexOptions with = options(12);
  with.hold_while.push_back(*Glob::parse("busy"));
  tree_.write("busy", "");
  EXPECT_EQ(index(with).outcome, Outcome::kHeld);
  expect_signature("file", content);
  EXPECT_EQ(packs(), std::set<std::string>{"1.signatures"});
}

TEST_F(Signatures, AtAnotherLevelReadOneFileOfEachContent) {
  const std::string content = noise(100'000, 1);
  for (const char* const name : {"a", "b", "c"})
    tree_.write(name, content);
  ASSERT_EQ(::link(tree_.path("a").c_str(), tree_.path("z").c_str()), 0);
  EXPECT_EQ(index(10).files_hashed, 3U);
  const IndexReport report = index(12);
  EXPECT_EQ(report.files_hashed, 1U);
  for (const char* const name : {"a", "b", "c", "z"})
    expect_signature(name, content);
  EXPECT_EQ(index(12).outcome, Outcome::kUnchanged);
}

// A file size limit stands for the full disk. In a child, since the limit is the process's; its
// exit status tells which check failed.
template <class Check>
int with_file_limit(rlim_t bytes, Check check) {
  const pid_t child = ::fork();
  CHECK(child >= 0);
  if (child == 0) {
    const rlimit limit{.rlim_cur = bytes, .rlim_max = bytes};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0 || ::signal(SIGXFSZ, SIG_IGN) == SIG_ERR) ::_exit(1);
    ::_exit(check());
  }
  int status = 0;
  CHECK(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_F(Signatures, AreDoneWithoutWhileTheDiskIsFull) {
  const std::string content = noise(20 << 20, 1);  // 218 kB of sums.
  tree_.write("large", content);
  tree_.write("small", noise(3000, 2));
  const int status = with_file_limit(100'000, [&] {
    Result<IndexReport> report = index_module(options());
    if (!report || report->outcome != Outcome::kPublished) return 2;
    if (report->files_without_digest != 0 || report->files_hashed != 2) return 3;
    if (place("large")) return 4;
    // Nothing is read again while there is no room for it.
    for (int i = 0; i < 3; ++i) {
      report = index_module(options());
      if (!report || report->files_hashed != 0) return 5;
    }
    // Other files are not held up.
    tree_.write("other", noise(3000, 3));
    report = index_module(options());
    if (!report || report->files_hashed != 1 || !place("other")) return 6;
    return packs().size() <= 1 ? 0 : 7;
  });
  EXPECT_EQ(status, 0);
  const IndexReport report = index();
  EXPECT_LE(report.files_hashed, 2U);
  EXPECT_GE(report.files_hashed, 1U);
  expect_signature("large", content);
  expect_signature("small", noise(3000, 2));
  EXPECT_EQ(index().outcome, Outcome::kUnchanged);
}

TEST_F(Signatures, LeaveNoFileBehindWhileThereIsNoRoomAtAll) {
  for (int i = 0; i < 40; ++i)
    tree_.write(std::to_string(i), noise(1 << 20, static_cast<uint64_t>(i)));
  const int status = with_file_limit(100'000, [&] {
    if (!index_module(options())) return 1;
    for (int i = 0; i < 3; ++i) {
      const Result<IndexReport> report = index_module(options(12));
      if (!report) return 2;
    }
    return packs().size() <= 2 ? 0 : 3;
  });
  EXPECT_EQ(status, 0);
}

TEST_F(Signatures, KeepNoGenerationFromBeingPublishedOverADifferentFormat) {
  const std::string content = noise(10'000, 1);
  tree_.write("file", content);
  index();
  std::string file = catalogs_.read("module/2.generation");
  file[8] = 1;
  catalogs_.write("module/2.generation", file);
  const IndexReport report = index();
  EXPECT_EQ(report.generation, 4U);
  EXPECT_EQ(report.files_hashed, 1U);
  expect_signature("file", content);
}

// Whatever stands in a generation's offsets, and its checksums made right again.
TEST_F(Signatures, ThatAGenerationPlacesWronglyAreMadeAgain) {
  const std::string content = noise(10'000, 1);
  tree_.write("file", content);
  index();
  for (const uint64_t offset : {uint64_t{1}, uint64_t{1} << 40, UINT64_MAX}) {
    const auto before = live();
    const std::string name = "module/" + generation_file_name(before->header().generation);
    std::string file = catalogs_.read(name);
    const size_t row = 64 + 10 * 24;  // Section 11.
    uint64_t at = 0;
    std::memcpy(&at, file.data() + row, sizeof(at));
    std::memcpy(file.data() + at + 8, &offset, sizeof(offset));
    const uint64_t section = hash::xxh64(as_bytes(file).subspan(at, 16));
    std::memcpy(file.data() + row + 16, &section, sizeof(section));
    const uint64_t header = hash::xxh64(as_bytes(file).first(kHeaderChecksumAt));
    std::memcpy(file.data() + kHeaderChecksumAt, &header, sizeof(header));
    catalogs_.write(name, file);
    EXPECT_EQ(index().outcome, Outcome::kPublished) << offset;
    expect_signature("file", content);
  }
}

TEST(ContentIndex, FindsEachContentAndNoOther) {
  Scan scan;
  constexpr uint32_t kCount = 1000;
  scan.sha.resize(kCount);
  scan.signatures.resize(kCount);
  ContentIndex index(nullptr, scan, kCount);
  for (uint32_t entry = 0; entry < kCount; ++entry) {
    // All in few slots, so that they get in each other's way; two of each.
    scan.sha[entry].bytes[0] = static_cast<uint8_t>(entry % 7);
    scan.sha[entry].bytes[30] = static_cast<uint8_t>(entry / 2 >> 8);
    scan.sha[entry].bytes[31] = static_cast<uint8_t>(entry / 2);
    scan.sha[entry].bytes[0] = 0;
    scan.signatures[entry] = 1000 + entry;
    EXPECT_EQ(index.find(scan.sha[entry]), entry % 2 == 0 ? 0 : 1000U + entry - 1);
    index.add(entry);
  }
  for (uint32_t entry = 0; entry < kCount; ++entry)
    EXPECT_EQ(index.find(scan.sha[entry]), 1000U + entry / 2 * 2);
  hash::Sha256 other;
  other.bytes[29] = 1;
  EXPECT_EQ(index.find(other), 0U);
}

}  // namespace
}  // namespace superlifter::catalog
