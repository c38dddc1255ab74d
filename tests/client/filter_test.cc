#include "client/filter.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>

namespace superlifter::client {
namespace {

using Action = Filter::Action;

// Rules as on a command line: "+pattern" includes, "-pattern" excludes.
Filter make_filter(std::initializer_list<std::string_view> rules) {
  Filter filter;
  for (const std::string_view rule : rules) {
    const Action action = rule.starts_with('+') ? Action::kInclude : Action::kExclude;
    const Status added = filter.add(action, rule.substr(1));
    EXPECT_TRUE(added.has_value()) << rule;
  }
  return filter;
}

bool excludes_file(const Filter& filter, std::string_view path) {
  return filter.excludes(path, IsDirectory::kNo);
}
bool excludes_directory(const Filter& filter, std::string_view path) {
  return filter.excludes(path, IsDirectory::kYes);
}

TEST(Filter, WithoutRulesNothingIsExcluded) {
  const Filter filter;
  EXPECT_TRUE(filter.empty());
  EXPECT_FALSE(excludes_file(filter, "a/b"));
  EXPECT_FALSE(excludes_directory(filter, ""));
}

TEST(Filter, FirstMatchWins) {
  const Filter include_first = make_filter({"+keep.tmp", "-*.tmp"});
  EXPECT_FALSE(excludes_file(include_first, "a/keep.tmp"));
  EXPECT_TRUE(excludes_file(include_first, "a/other.tmp"));
  const Filter exclude_first = make_filter({"-*.tmp", "+keep.tmp"});
  EXPECT_TRUE(excludes_file(exclude_first, "a/keep.tmp"));
}

TEST(Filter, ExcludedDirectoryTakesAllBeneathAlong) {
  const Filter filter = make_filter({"-cache/", "+cache/keep"});
  EXPECT_TRUE(excludes_directory(filter, "a/cache"));
  EXPECT_TRUE(excludes_file(filter, "a/cache/x/y"));
  EXPECT_TRUE(excludes_file(filter, "a/cache/keep"));  // Too late: its directory is gone.
  EXPECT_FALSE(excludes_file(filter, "a/cache"));      // A file of that name.
}

TEST(Filter, IncludedDirectoryDoesNotIncludeItsContent) {
  const Filter filter = make_filter({"+dists/", "-*"});
  EXPECT_FALSE(excludes_directory(filter, "dists"));
  EXPECT_TRUE(excludes_file(filter, "dists/Release"));
}

TEST(Filter, UsualRsyncRecipesWork) {
  // Only *.deb, in every directory.
  const Filter only = make_filter({"+*/", "+*.deb", "-*"});
  EXPECT_FALSE(excludes_file(only, "pool/a/x.deb"));
  EXPECT_TRUE(excludes_file(only, "pool/a/x.dsc"));
  EXPECT_FALSE(excludes_directory(only, "pool/a"));
  // One directory with all that is in it.
  const Filter one = make_filter({"+/a/", "+/a/b/***", "-*"});
  EXPECT_FALSE(excludes_directory(one, "a"));
  EXPECT_FALSE(excludes_directory(one, "a/b"));
  EXPECT_FALSE(excludes_file(one, "a/b/c/d"));
  EXPECT_TRUE(excludes_file(one, "a/x"));
  EXPECT_TRUE(excludes_directory(one, "b"));
}

TEST(Filter, ThreeStarsAreTheDirectoryAndAllInIt) {
  const Filter filter = make_filter({"-/tmp/***"});
  EXPECT_TRUE(excludes_directory(filter, "tmp"));
  EXPECT_TRUE(excludes_file(filter, "tmp/a"));
  EXPECT_TRUE(excludes_file(filter, "tmp/a/b"));
  EXPECT_FALSE(excludes_file(filter, "tmp"));  // "tmp/" names directories only.
  EXPECT_FALSE(excludes_file(filter, "a/tmp/b"));
}

TEST(Filter, RootIsNeverExcluded) {
  const Filter filter = make_filter({"-*", "-**"});
  EXPECT_FALSE(excludes_directory(filter, ""));
  EXPECT_FALSE(filter.excludes_entry("", IsDirectory::kYes));
  EXPECT_TRUE(excludes_file(filter, "a"));
}

TEST(Filter, AnchoredMeansAtTheDestination) {
  const Filter filter = make_filter({"-/project"});
  EXPECT_TRUE(excludes_directory(filter, "project"));
  EXPECT_FALSE(excludes_directory(filter, "a/project"));
}

TEST(Filter, EntryLooksAtItsOwnNameOnly) {
  const Filter filter = make_filter({"-cache/"});
  EXPECT_TRUE(filter.excludes_entry("cache", IsDirectory::kYes));
  EXPECT_FALSE(filter.excludes_entry("cache/x", IsDirectory::kNo));
  EXPECT_TRUE(filter.excludes("cache/x", IsDirectory::kNo));
}

TEST(Filter, TakesARelPath) {
  const Filter filter = make_filter({"-a/b"});
  EXPECT_TRUE(filter.excludes(*RelPath::parse("x/a/b"), IsDirectory::kNo));
  EXPECT_FALSE(filter.excludes(RelPath(), IsDirectory::kYes));
}

TEST(Filter, RefusesBadPatterns) {
  Filter filter;
  for (const std::string_view pattern :
       {"", "/", "[a", "a\\", "+ foo", "- foo", "!", "[[:x:]]", "[/***"}) {
    const Status status = filter.add(Action::kExclude, pattern);
    ASSERT_FALSE(status.has_value()) << pattern;
    EXPECT_EQ(status.error().code, Errc::kConfig) << pattern;
  }
  EXPECT_TRUE(filter.empty());
  EXPECT_TRUE(filter.add(Action::kExclude, "[+] foo").has_value());
}

TEST(Filter, HoldsTheBoundOnRules) {
  Filter filter;
  for (size_t i = 0; i < kMaxFilterRules; ++i) {
    ASSERT_TRUE(filter.add(Action::kExclude, "x").has_value());
  }
  EXPECT_EQ(filter.add(Action::kExclude, "x").error().code, Errc::kLimit);
}

}  // namespace
}  // namespace superlifter::client
