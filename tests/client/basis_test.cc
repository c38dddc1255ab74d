// Which local file a file is rebuilt from.
#include "client/basis.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/target_tree.h"
#include "tests/support/temp_tree.h"

namespace superlifter::client {
namespace {

using tests::TargetTree;
using tests::TempTree;
using tree::kRoot;

const std::string kContent(5000, 'x');

// A target with one file, of 5000 bytes.
struct Wanted {
  explicit Wanted(std::string_view name) {
    file = tree.file(kRoot, name, kContent);
    tree.finish();
  }
  bool is_update(const TempTree& dest) const {
    return BasisFinder(dest.fd(), tree.view()).is_update(file);
  }
  std::optional<Basis> find(const TempTree& dest) const {
    return BasisFinder(dest.fd(), tree.view()).find(file);
  }
  std::string path(const TempTree& dest) const {
    const std::optional<Basis> basis = find(dest);
    return basis ? basis->path : "";
  }
  TargetTree tree;
  uint32_t file = 0;
};

TEST(Basis, TheSamePathComesFirst) {
  const Wanted wanted("foo_1.2-4_amd64.deb");
  TempTree dest;
  dest.write("foo_1.2-3_amd64.deb", kContent);
  dest.write("foo_1.2-4_amd64.deb", std::string(3000, 'y'));
  const std::optional<Basis> basis = wanted.find(dest);
  ASSERT_TRUE(basis);
  EXPECT_EQ(basis->path, "foo_1.2-4_amd64.deb");
  EXPECT_EQ(basis->size_bytes, 3000U);
  EXPECT_TRUE(basis->is_same_path);
}

TEST(Basis, ASimilarNameServesWhenThePathIsNew) {
  const Wanted wanted("foo_1.2-4_amd64.deb");
  TempTree dest;
  dest.write("foo_1.2-3_amd64.deb", kContent);
  dest.write("foo_1.2-3_arm64.deb", kContent);
  dest.write("foo-doc_1.2-3_all.deb", kContent);
  dest.write("fop_1.2-4_amd64.deb", kContent);
  dest.write("Release", kContent);
  const std::optional<Basis> basis = wanted.find(dest);
  ASSERT_TRUE(basis);
  EXPECT_EQ(basis->path, "foo_1.2-3_amd64.deb");
  EXPECT_EQ(basis->size_bytes, 5000U);
  EXPECT_FALSE(basis->is_same_path);
}

TEST(Basis, UnlikeNamesAreNoBasis) {
  const Wanted wanted("foo_1.2-4_amd64.deb");
  TempTree dest;
  for (const char* name : {"foo-doc_1.2-3_all.deb", "bar_1.2-4_amd64.deb", "Release", "foo",
                           "foo_1.2.orig.tar.xz", "1", "."}) {
    if (std::string_view(name) != ".") dest.write(name, kContent);
  }
  EXPECT_EQ(wanted.path(dest), "");
}

TEST(Basis, SizeAndKindMustFit) {
  const Wanted wanted("foo-4.img");
  TempTree dest;
  dest.write("foo-3.img", std::string(2047, 'x'));  // Too small for a delta to pay.
  dest.write("foo-5.img", std::string(5 * 5000, 'x'));
  dest.make_directory("foo-6.img");
  ASSERT_EQ(symlink("foo-5.img", dest.path("foo-7.img").c_str()), 0);
  EXPECT_EQ(wanted.path(dest), "");
  dest.write("foo-3.img", std::string(2048, 'x'));
  EXPECT_EQ(wanted.path(dest), "foo-3.img");
}

TEST(Basis, WhatStandsInThePlaceMustBeAFileOfSomeSize) {
  const Wanted wanted("foo-4.img");
  TempTree dest;
  dest.write("foo-3.img", kContent);
  dest.write("foo-4.img", "tiny");
  EXPECT_EQ(wanted.path(dest), "foo-3.img");
  ASSERT_EQ(unlink(dest.path("foo-4.img").c_str()), 0);
  ASSERT_EQ(symlink("foo-3.img", dest.path("foo-4.img").c_str()), 0);
  EXPECT_EQ(wanted.path(dest), "foo-3.img");
  ASSERT_EQ(unlink(dest.path("foo-4.img").c_str()), 0);
  ASSERT_EQ(mkfifo(dest.path("foo-4.img").c_str(), 0600), 0);
  EXPECT_EQ(wanted.path(dest), "foo-3.img");
}

TEST(Basis, AFileInThePlaceMakesAnUpdateWhateverItsSize) {
  const Wanted wanted("foo");
  TempTree dest;
  EXPECT_FALSE(wanted.is_update(dest));
  dest.write("foo", "");
  EXPECT_TRUE(wanted.is_update(dest));
  ASSERT_EQ(unlink(dest.path("foo").c_str()), 0);
  ASSERT_EQ(symlink("elsewhere", dest.path("foo").c_str()), 0);
  EXPECT_FALSE(wanted.is_update(dest));
}

TEST(Basis, NothingHereIsNoBasis) {
  const Wanted wanted("foo");
  TempTree dest;
  EXPECT_FALSE(wanted.find(dest));
  ASSERT_EQ(rmdir(dest.path().c_str()), 0);
  EXPECT_FALSE(wanted.find(dest));
}

TEST(Basis, AFileThatThisPullReplacesServesNoOther) {
  TargetTree tree;
  const uint32_t third = tree.file(kRoot, "foo-3", kContent);
  const uint32_t fourth = tree.file(kRoot, "foo-4", kContent);
  tree.finish();
  TempTree dest;
  dest.write("foo-3", kContent);
  std::vector<Action> actions(tree.view().count(), Action::kNone);
  actions[fourth] = Action::kFetch;
  EXPECT_EQ(BasisFinder(dest.fd(), tree.view(), actions).find(fourth)->path, "foo-3");
  actions[third] = Action::kFetch;
  EXPECT_FALSE(BasisFinder(dest.fd(), tree.view(), actions).find(fourth));
  EXPECT_TRUE(BasisFinder(dest.fd(), tree.view(), actions).find(third)->is_same_path);
  EXPECT_TRUE(BasisFinder(dest.fd(), tree.view()).find(fourth));
}

TEST(Basis, DirectoriesMayBeLeftAndComeBackTo) {
  TargetTree tree;
  std::vector<uint32_t> files;
  const auto add = [&](uint32_t parent, std::string_view name) {
    files.push_back(tree.file(parent, name, kContent));
  };
  add(kRoot, "a-2");
  const uint32_t outer = tree.directory(kRoot, "b");
  add(outer, "b-2");
  const uint32_t inner = tree.directory(outer, "c");
  add(inner, "c-2");
  add(outer, "d-2");
  const uint32_t other = tree.directory(kRoot, "e");
  add(other, "e-2");
  add(kRoot, "f-2");
  tree.finish();
  TempTree dest;
  for (const char* path : {"a-1", "b/b-1", "b/c/c-1", "b/d-1", "e/e-1", "f-1"}) {
    dest.write(path, kContent);
  }
  BasisFinder finder(dest.fd(), tree.view());
  std::string found;
  for (const uint32_t file : files) {
    const std::optional<Basis> basis = finder.find(file);
    found += basis ? basis->path + " " : "- ";
  }
  EXPECT_EQ(found, "a-1 b/b-1 b/c/c-1 b/d-1 e/e-1 f-1 ");
}

TEST(Basis, ManyNamesAreNoQuadraticWork) {
  constexpr int kFiles = 20'000;
  TargetTree tree;
  TempTree dest;
  for (int i = 0; i < kFiles; ++i) {
    const std::string name = "some-package-" + std::to_string(1'000'000 + i);
    tree.file(kRoot, name + "_2.deb", "x");
    const UniqueFd made(
        open(dest.path(name + "_1.deb").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    ASSERT_TRUE(made.valid());
  }
  tree.finish();
  BasisFinder finder(dest.fd(), tree.view());
  const auto begin = std::chrono::steady_clock::now();
  for (uint32_t entry = 1; entry < tree.view().count(); ++entry) {
    EXPECT_FALSE(finder.find(entry));  // All are empty.
  }
  // Comparing all with all would take minutes.
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST(NameSimilarity, IsThatOfTheParts) {
  EXPECT_EQ(name_similarity("same", "same"), 1000U);
  EXPECT_EQ(name_similarity("", ""), 0U);
  EXPECT_EQ(name_similarity("abc", "xyz"), 0U);
  EXPECT_EQ(name_similarity("foo-1.2.tar.gz", "foo-1.2.tar.gz"), 1000U);
  const auto alike = [](std::string_view a, std::string_view b) {
    EXPECT_EQ(name_similarity(a, b), name_similarity(b, a)) << a << " " << b;
    return name_similarity(a, b) >= 600;
  };
  EXPECT_TRUE(alike("linux-image-6.1.0-18-amd64_6.1.76-1_amd64.deb",
                    "linux-image-6.1.0-20-amd64_6.1.85-1_amd64.deb"));
  EXPECT_TRUE(alike("backup-20240501.sql", "backup-20240430.sql"));
  EXPECT_TRUE(alike("app-1.9.0.tar.gz", "app-1.10.0-rc1.tar.gz"));
  EXPECT_TRUE(alike("kernel-5.14.0-362.el9.x86_64.rpm", "kernel-5.14.0-427.13.1.el9.x86_64.rpm"));
  EXPECT_FALSE(alike("app-1.9.0.tar.gz", "app-1.9.0.tar.xz"));
  EXPECT_FALSE(alike("foo.c", "foo.h"));
  EXPECT_FALSE(alike("1", "2"));
  EXPECT_FALSE(alike("vmlinuz", "initrd"));
}

TEST(NameSimilarity, LongNamesAreCutShort) {
  std::string a;
  for (int i = 0; i < 127; ++i) {
    a += "a1";
  }
  EXPECT_EQ(name_similarity(a, a), 1000U);
  EXPECT_LT(name_similarity(a, a + "x"), 1000U);
  EXPECT_LT(name_similarity(a, std::string(255, '-')), 100U);
}

}  // namespace
}  // namespace superlifter::client
