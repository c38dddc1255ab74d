// CatalogStore: generations that change while they are served, access rules, limits, and catalogs
// that are missing or damaged.
#include "daemon/catalog_store.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "core/catalog/publisher.h"
#include "core/fs/beneath.h"
#include "core/shm/segment.h"
#include "tests/daemon/serve_support.h"

namespace superlifter::daemon {
namespace {

using session::Generation;

class CatalogStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    served_.tree.write("root/a", "first");
    served_.tree.write("root/d/b", "second file");
    Result<shm::Segment> segment = shm::Segment::create(64);
    ASSERT_TRUE(segment.has_value());
    segment_.emplace(std::move(*segment));
    limiter_.emplace(*segment_, shm::Limits{});
  }
  CatalogCache& cache() {
    if (!cache_) {
      cache_.emplace(served_.config, clock_,
                     [this](const std::string& module) { stale_.push_back(module); });
    }
    return *cache_;
  }
  // The store of a session from that address; empty for a pipe.
  SessionStore& store(const std::string& address = "192.0.2.1") {
    std::optional<session::Address> peer;
    if (!address.empty()) peer = *session::parse_address(address);
    Result<shm::Admission> admission = limiter_->admit(peer.value_or(session::Address{}).bytes, 0);
    CHECK(admission.has_value());
    admissions_.push_back(std::move(*admission));
    stores_.push_back(
        std::make_unique<SessionStore>(cache(), peer, *limiter_, admissions_.back().row()));
    return *stores_.back();
  }
  static uint32_t entry_of(const Generation& generation, const std::string& path) {
    for (uint32_t entry = 0; entry <= generation.totals().entries; ++entry) {
      const Result<Generation::File> file = generation.file(entry);
      if (file && file->open.path == path) return entry;
    }
    return 0xFFFF'FFFF;
  }

  tests::ServedTree served_;
  tests::ManualClock clock_;
  std::vector<std::string> stale_;
  std::optional<shm::Segment> segment_;
  std::optional<shm::Limiter> limiter_;
  std::optional<CatalogCache> cache_;
  std::vector<shm::Admission> admissions_;
  std::vector<std::unique_ptr<SessionStore>> stores_;
};

TEST_F(CatalogStoreTest, OpensWhatCurrentNames) {
  const uint64_t number = served_.index();
  const auto generation = store().open("m");
  ASSERT_TRUE(generation.has_value()) << generation.error().message;
  EXPECT_EQ((*generation)->number(), number);
  EXPECT_EQ((*generation)->totals().files, 2U);
  EXPECT_TRUE((*generation)->is_kept());
  EXPECT_TRUE((*generation)->root().known());
  EXPECT_FALSE((*generation)->node((*generation)->root()).empty());
  EXPECT_GT((*generation)->all_nodes().length_bytes, 0U);
  EXPECT_EQ((*generation)->xxh_digests(0, 2).size(), 32U);
}

TEST_F(CatalogStoreTest, AFileOpensBeneathTheRootWithItsValidators) {
  served_.index();
  const auto generation = store().open("m");
  ASSERT_TRUE(generation.has_value());
  const uint32_t entry = entry_of(**generation, "d/b");
  const Result<Generation::File> file = (*generation)->file(entry);
  ASSERT_TRUE(file.has_value());
  EXPECT_EQ(file->validators.size_bytes, 11U);
  const Result<UniqueFd> fd = fs::open(file->open);
  ASSERT_TRUE(fd.has_value()) << fd.error().message;
}

TEST_F(CatalogStoreTest, OnlyRegularFilesCanBeAskedFor) {
  served_.index();
  const auto generation = store().open("m");
  ASSERT_TRUE(generation.has_value());
  EXPECT_EQ((*generation)->file(0).error().code, Errc::kNotFound);
  EXPECT_EQ((*generation)->file(99).error().code, Errc::kNotFound);
  EXPECT_EQ((*generation)->file(0xFFFF'FFFF).error().code, Errc::kNotFound);
  EXPECT_TRUE((*generation)->xxh_digests(3, 2).empty());
}

TEST_F(CatalogStoreTest, ASignatureLiesInThePackWhereItSays) {
  const std::string content(50'000, 'x');
  served_.tree.write("root/large", content);
  served_.index();
  const auto generation = store().open("m");
  ASSERT_TRUE(generation.has_value());
  EXPECT_EQ((*generation)->signature_level(), 10U);
  const auto signature = (*generation)->signature(entry_of(**generation, "large"));
  ASSERT_TRUE(signature.has_value());
  Bytes expected;
  delta::append_sums(as_bytes(content), 12, delta::kMostWidth, expected);
  Bytes stored(expected.size());
  ASSERT_EQ(pread(signature->file->fd.get(), stored.data(), stored.size(),
                  static_cast<off_t>(signature->offset + signature->layout.offset_of(12, 0))),
            static_cast<ssize_t>(stored.size()));
  EXPECT_EQ(stored, expected);
  for (const uint32_t entry : {0U, entry_of(**generation, "a"), 99U, 0xFFFF'FFFFU})
    EXPECT_FALSE((*generation)->signature(entry).has_value()) << entry;
}

// The pack outlives its name for whoever has the generation open.
TEST_F(CatalogStoreTest, APackThatIsMissingOrDamagedMeansNoSignatures) {
  served_.tree.write("root/large", std::string(50'000, 'x'));
  uint64_t number = served_.index();
  const auto before = store().open("m");
  ASSERT_TRUE(before.has_value());
  const std::string pack = served_.tree.path("catalog/m/1.signatures");
  const std::string whole = served_.tree.read("catalog/m/1.signatures");
  for (const std::string& damaged :
       {std::string(), whole.substr(0, whole.size() - 1), "x" + whole.substr(1)}) {
    served_.tree.write("catalog/m/1.signatures", damaged);
    cache_.reset();
    stores_.clear();
    const auto generation = store().open("m");
    ASSERT_TRUE(generation.has_value()) << generation.error().message;
    EXPECT_EQ((*generation)->number(), number);
    EXPECT_EQ((*generation)->signature_level(), 0U);
    EXPECT_FALSE((*generation)->signature(entry_of(**generation, "large")).has_value());
  }
  ASSERT_EQ(unlink(pack.c_str()), 0);
  cache_.reset();
  stores_.clear();
  EXPECT_EQ((*store().open("m"))->signature_level(), 0U);
  // The indexer makes it anew.
  number = served_.index();
  const auto after = store().open("m");
  ASSERT_TRUE(after.has_value());
  EXPECT_EQ((*after)->number(), number);
  EXPECT_TRUE((*after)->signature(entry_of(**after, "large")).has_value());
}

TEST_F(CatalogStoreTest, AGenerationOfAnOlderFormatIsNoneYet) {
  const uint64_t number = served_.index();
  const std::string name = "catalog/m/" + catalog::generation_file_name(number);
  std::string file = served_.tree.read(name);
  file[8] = 1;
  served_.tree.write(name, file);
  EXPECT_EQ(store().open("m").error().code, Errc::kGone);
  served_.index();
  EXPECT_TRUE(store().open("m").has_value());
}

TEST_F(CatalogStoreTest, ANewGenerationIsSeenAndTheOldOneLivesOn) {
  const uint64_t first = served_.index();
  const auto old = store().open("m");
  ASSERT_TRUE(old.has_value());
  EXPECT_EQ(*store().open("m"), *old);  // Mapped once.
  served_.tree.write("root/new", "x");
  const uint64_t second = served_.index();
  EXPECT_GT(second, first);
  const auto live = store().open("m");
  ASSERT_TRUE(live.has_value());
  EXPECT_EQ((*live)->number(), second);
  EXPECT_EQ((*old)->number(), first);
  EXPECT_EQ((*old)->totals().files, 2U);
  EXPECT_TRUE((*old)->is_kept());
}

TEST_F(CatalogStoreTest, ADroppedGenerationIsNoLongerKept) {
  served_.config.limits.generations = 1;
  served_.index();
  const auto old = store().open("m");
  ASSERT_TRUE(old.has_value());
  EXPECT_TRUE((*old)->is_kept());
  served_.tree.write("root/new", "x");
  served_.index();
  // The answer holds for a second.
  EXPECT_TRUE((*old)->is_kept());
  clock_.now_ms += 1000;
  EXPECT_FALSE((*old)->is_kept());
}

TEST_F(CatalogStoreTest, AModuleWithoutAGenerationIsGoneForNow) {
  EXPECT_EQ(store().open("m").error().code, Errc::kGone);
  const std::vector<session::ModuleSummary> modules = store().modules();
  ASSERT_EQ(modules.size(), 1U);
  EXPECT_EQ(modules[0].generation, 0U);
  served_.index();
  EXPECT_TRUE(store().open("m").has_value());
  EXPECT_EQ(store().modules()[0].totals.files, 2U);
}

TEST_F(CatalogStoreTest, ACatalogThatIsMadeAnewIsFoundAgain) {
  served_.index();
  ASSERT_TRUE(store().open("m").has_value());
  std::filesystem::remove_all(served_.tree.path("catalog/m"));
  EXPECT_EQ(store().open("m").error().code, Errc::kGone);
  served_.index();
  EXPECT_TRUE(store().open("m").has_value());
}

TEST_F(CatalogStoreTest, RulesDecideWhoSeesAModule) {
  config::Module& denied = served_.add_module("denied");
  denied.access.deny = {*session::parse_prefix("192.0.2.0/24")};
  config::Module& hidden = served_.add_module("hidden");
  hidden.list = false;
  config::Module& secret = served_.add_module("secret");
  secret.list = false;
  secret.access.allow = {*session::parse_prefix("10.0.0.0/8")};
  for (const char* name : {"m", "denied", "hidden", "secret"})
    served_.index(name);
  EXPECT_EQ(store().open("denied").error().code, Errc::kDenied);
  EXPECT_EQ(store().open("secret").error().code, Errc::kNotFound);
  EXPECT_EQ(store().open("absent").error().code, Errc::kNotFound);
  EXPECT_TRUE(store().open("hidden").has_value());
  EXPECT_TRUE(store("10.1.2.3").open("secret").has_value());
  ASSERT_EQ(store().modules().size(), 1U);
  EXPECT_EQ(store().modules()[0].name, "m");
  EXPECT_EQ(store("10.1.2.3").modules().size(), 2U);
  // A pipe has no address: only what is open to everybody.
  EXPECT_TRUE(store("").open("m").has_value());
  EXPECT_EQ(store("").open("denied").error().code, Errc::kDenied);
}

TEST_F(CatalogStoreTest, AModulesLimitIsCountedBySession) {
  served_.config.modules[0].connections = 1;
  served_.index();
  SessionStore& first = store();
  EXPECT_TRUE(first.open("m").has_value());
  EXPECT_TRUE(first.open("m").has_value());
  EXPECT_EQ(store().open("m").error().code, Errc::kBusy);
  admissions_.front().release();
  EXPECT_TRUE(stores_.back()->open("m").has_value());
}

TEST_F(CatalogStoreTest, DamageIsAnErrorAndNotTheModulesAbsence) {
  const uint64_t number = served_.index();
  const std::string name = "catalog/m/" + catalog::generation_file_name(number);
  std::string bytes = served_.tree.read(name);
  bytes[20] = static_cast<char>(bytes[20] ^ 0xFF);
  served_.tree.write(name, bytes);
  EXPECT_EQ(store().open("m").error().code, Errc::kCorrupt);
  served_.tree.write("catalog/m/CURRENT", "nonsense\n");
  EXPECT_EQ(store().open("m").error().code, Errc::kCorrupt);
  served_.tree.write("catalog/m/CURRENT", "77\n");
  EXPECT_EQ(store().open("m").error().code, Errc::kCorrupt);
}

TEST_F(CatalogStoreTest, ARootThatCannotBeOpenedIsAnErrorOfItsModuleAlone) {
  config::Module& broken = served_.add_module("broken");
  served_.index("m");
  served_.index("broken");
  broken.path = served_.tree.path("absent");
  EXPECT_EQ(store().open("broken").error().code, Errc::kIo);
  EXPECT_TRUE(store().open("m").has_value());
}

TEST_F(CatalogStoreTest, StaleReportsArePassedOnNowAndThen) {
  served_.index();
  const auto generation = store().open("m");
  ASSERT_TRUE(generation.has_value());
  for (int i = 0; i < 10; ++i)
    (*generation)->report_stale(1);
  EXPECT_EQ(stale_, std::vector<std::string>{"m"});
  clock_.now_ms += 10'000;
  (*generation)->report_stale(0xFFFF'FFFF);
  EXPECT_EQ(stale_.size(), 2U);
}

}  // namespace
}  // namespace superlifter::daemon
