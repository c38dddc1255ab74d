// publisher: one writer, one swap, and what survives damage.
#include "core/catalog/publisher.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <set>
#include <string>

#include "tests/core/catalog/sample.h"
#include "tests/support/temp_tree.h"

namespace superlifter::catalog {
namespace {

std::set<std::string> names_in(const std::string& path) {
  std::set<std::string> out;
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    out.insert(entry.path().filename().string());
  }
  return out;
}

class Publishing : public testing::Test {
 protected:
  Publisher make() const {
    Result<Publisher> publisher = Publisher::open(tree_.fd(), "module");
    CHECK(publisher.has_value());
    return std::move(*publisher);
  }
  uint64_t publish(Publisher& publisher, size_t keep = 4) const {
    const Result<uint64_t> number = publisher.publish(sample_.parts(), keep);
    EXPECT_TRUE(number) << (number ? "" : number.error().message);
    return number.value_or(0);
  }
  std::set<std::string> names() const { return names_in(tree_.path("module")); }

  tests::TempTree tree_;
  Sample sample_;
};

TEST_F(Publishing, BeginsWithNothing) {
  const Publisher publisher = make();
  EXPECT_EQ(read_current(publisher.directory_fd()).value_or(9), 0U);
  const auto current = publisher.current();
  ASSERT_TRUE(current);
  EXPECT_EQ(*current, nullptr);
  struct stat stat{};
  ASSERT_EQ(::stat(tree_.path("module").c_str(), &stat), 0);
  EXPECT_EQ(stat.st_mode & 07777, 0755U);
}

TEST_F(Publishing, MakesEachGenerationTheLiveOne) {
  Publisher publisher = make();
  EXPECT_EQ(publish(publisher), 1U);
  EXPECT_EQ(tree_.read("module/CURRENT"), "1\n");
  EXPECT_EQ(publish(publisher), 2U);
  EXPECT_EQ(read_current(publisher.directory_fd()).value_or(0), 2U);
  const auto current = publisher.current();
  ASSERT_TRUE(current);
  ASSERT_NE(*current, nullptr);
  EXPECT_EQ((*current)->header().generation, 2U);
  EXPECT_GT((*current)->header().created_ns, 1'600'000'000'000'000'000);
}

TEST_F(Publishing, KeepsTheGivenNumberAndRemovesLeftovers) {
  Publisher publisher = make();
  for (int i = 0; i < 5; ++i) {
    publish(publisher, 3);
  }
  tree_.write("module/4.generation.tmp", "");
  tree_.write("module/CURRENT.tmp", "");
  tree_.write("module/notes.txt", "of the administrator");
  EXPECT_EQ(publish(publisher, 3), 6U);
  EXPECT_EQ(names(), (std::set<std::string>{"4.generation", "5.generation", "6.generation",
                                            "CURRENT", "LOCK", "notes.txt"}));
  publish(publisher, 0);  // The live one is never removed.
  EXPECT_EQ(names(), (std::set<std::string>{"7.generation", "CURRENT", "LOCK", "notes.txt"}));
}

TEST_F(Publishing, NeverUsesANumberTwice) {
  Publisher publisher = make();
  publish(publisher);
  // Built and not published: a crash came between.
  ASSERT_TRUE(build(publisher.directory_fd(), "2.generation", sample_.parts()));
  EXPECT_EQ(publish(publisher), 3U);
  EXPECT_EQ(names(), (std::set<std::string>{"1.generation", "3.generation", "CURRENT", "LOCK"}));
}

TEST_F(Publishing, RefusesASecondWriterAndNamesTheFirst) {
  Publisher first = make();
  const Result<Publisher> second = Publisher::open(tree_.fd(), "module");
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Errc::kBusy);
  EXPECT_NE(second.error().message.find("process " + std::to_string(::getpid())),
            std::string::npos);
  EXPECT_TRUE(Publisher::open(tree_.fd(), "another"));
  {
    const Publisher moved = std::move(first);
  }
  EXPECT_TRUE(Publisher::open(tree_.fd(), "module"));
}

TEST_F(Publishing, RefusesAModuleThatIsNoFileName) {
  for (const char* const name : {"", "..", "a/b"}) {
    EXPECT_FALSE(Publisher::open(tree_.fd(), name)) << name;
  }
}

TEST_F(Publishing, SetsADamagedGenerationAside) {
  Publisher publisher = make();
  publish(publisher);
  publish(publisher);
  std::string file = tree_.read("module/2.generation");
  file[5000] = static_cast<char>(file[5000] ^ 1);
  tree_.write("module/2.generation", file);
  const auto current = publisher.current();
  ASSERT_TRUE(current) << current.error().message;
  EXPECT_EQ(*current, nullptr);
  EXPECT_TRUE(names().contains("2.damaged"));
  EXPECT_EQ(publish(publisher), 3U);
  EXPECT_EQ(names(), (std::set<std::string>{"1.generation", "2.damaged", "3.generation", "CURRENT",
                                            "LOCK"}));
}

TEST_F(Publishing, TreatsAMissingOrMisnamedGenerationAsNone) {
  Publisher publisher = make();
  publish(publisher);
  ASSERT_EQ(::rename(tree_.path("module/1.generation").c_str(),
                     tree_.path("module/5.generation").c_str()),
            0);
  EXPECT_EQ(publisher.current().value(), nullptr);
  tree_.write("module/CURRENT", "5\n");
  EXPECT_EQ(publisher.current().value(), nullptr);
  EXPECT_EQ(publish(publisher), 6U);
}

TEST_F(Publishing, LeavesANewerFormatAlone) {
  Publisher publisher = make();
  publish(publisher);
  std::string file = tree_.read("module/1.generation");
  file[8] = 9;
  tree_.write("module/1.generation", file);
  const auto current = publisher.current();
  ASSERT_FALSE(current);
  EXPECT_EQ(current.error().code, Errc::kUnsupported);
  EXPECT_EQ(tree_.read("module/1.generation"), file);
}

TEST_F(Publishing, MakesAnOlderFormatAnewWithoutCallingItDamaged) {
  Publisher publisher = make();
  publish(publisher);
  std::string file = tree_.read("module/1.generation");
  file[8] = 1;
  tree_.write("module/1.generation", file);
  const auto current = publisher.current();
  ASSERT_TRUE(current) << current.error().message;
  EXPECT_EQ(*current, nullptr);
  EXPECT_EQ(names(), (std::set<std::string>{"1.generation", "CURRENT", "LOCK"}));
  EXPECT_EQ(publish(publisher), 2U);
}

TEST_F(Publishing, KeepsThePacksThatKeptGenerationsName) {
  Publisher publisher = make();
  Parts parts = sample_.parts();
  for (const uint64_t pack : {1, 2, 2, 3}) {
    parts.header.pack = pack;
    tree_.write("module/" + pack_file_name(pack), "");
    tree_.write("module/4.signatures", "");
    // Number 4 is being written and named by none.
    ASSERT_TRUE(publisher.publish(parts, 2, 4));
  }
  EXPECT_EQ(names(), (std::set<std::string>{"2.signatures", "3.generation", "3.signatures",
                                            "4.generation", "4.signatures", "CURRENT", "LOCK"}));
  ASSERT_TRUE(publisher.publish(parts, 2));
  EXPECT_EQ(names(), (std::set<std::string>{"3.signatures", "4.generation", "5.generation",
                                            "CURRENT", "LOCK"}));
}

TEST_F(Publishing, RemovesNoPackWhileAKeptGenerationCannotBeRead) {
  Publisher publisher = make();
  publish(publisher);
  std::string file = tree_.read("module/1.generation");
  file[8] = 9;
  tree_.write("module/1.generation", file);
  tree_.write("module/1.signatures", "");
  publish(publisher);
  EXPECT_TRUE(names().contains("1.signatures"));
  file[8] = 2;
  file[4095] = static_cast<char>(file[4095] ^ 1);  // Damaged: nobody can use it any more.
  tree_.write("module/1.generation", file);
  publish(publisher);
  EXPECT_FALSE(names().contains("1.signatures"));
}

TEST_F(Publishing, ReplacesADamagedCurrent) {
  Publisher publisher = make();
  publish(publisher);
  for (const std::string text :
       {"", "\n", "x\n", "1", "01\n", "0\n", "-1\n", "1\n\n",
        "99999999999999999999999999999999999\n", "18446744073709551616\n"}) {
    tree_.write("module/CURRENT", text);
    const Result<uint64_t> current = read_current(publisher.directory_fd());
    ASSERT_FALSE(current) << text;
    EXPECT_EQ(current.error().code, Errc::kCorrupt);
  }
  EXPECT_EQ(publisher.current().value(), nullptr);
  EXPECT_EQ(publish(publisher), 2U);
  EXPECT_EQ(tree_.read("module/CURRENT"), "2\n");
  EXPECT_TRUE(names().contains("1.generation"));
}

TEST_F(Publishing, RefusesToCountPastTheLastNumber) {
  Publisher publisher = make();
  tree_.write("module/18446744073709551615.generation", "");
  const Result<uint64_t> number = publisher.publish(sample_.parts(), 4);
  ASSERT_FALSE(number);
  EXPECT_EQ(number.error().code, Errc::kLimit);
}

TEST_F(Publishing, KeepsTheLastGenerationWhenTheDiskIsFull) {
  Publisher publisher = make();
  publish(publisher);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    // A file size limit stands for the full disk.
    const rlimit limit{.rlim_cur = 100, .rlim_max = 100};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0 || ::signal(SIGXFSZ, SIG_IGN) == SIG_ERR) ::_exit(1);
    ::_exit(publisher.publish(sample_.parts(), 4) ? 2 : 0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(names(), (std::set<std::string>{"1.generation", "CURRENT", "LOCK"}));
  EXPECT_EQ(publisher.current().value()->header().generation, 1U);
}

}  // namespace
}  // namespace superlifter::catalog
