#include "core/base/rel_path.h"

#include <gtest/gtest.h>

#include "core/base/limits.h"

namespace superlifter {
namespace {

std::string deep_path(size_t size_bytes) {
  std::string out;
  while (out.size() < size_bytes)
    out += out.size() % 2 == 0 ? 'a' : '/';
  return out;
}

TEST(RelPath, TakesPlainPathsOfAnyBytes) {
  for (const std::string_view text :
       {"", "a", "a/b", ".a", "..a", "a..", "...", "a/.../b", " ", "-", "~", "a\nb/\xff", "a\\b"}) {
    const Result<RelPath> path = RelPath::parse(text);
    ASSERT_TRUE(path.has_value()) << text;
    EXPECT_EQ(path->text(), text);
    EXPECT_EQ(path->is_root(), text.empty());
  }
}

TEST(RelPath, RefusesWhatCouldEscape) {
  using namespace std::string_view_literals;
  for (const std::string_view text :
       {"/"sv, "/a"sv, "a/"sv, "a//b"sv, "//"sv, "."sv, ".."sv, "./a"sv, "a/."sv, "a/.."sv,
        "../a"sv, "a/../b"sv, "a/./b"sv, "a\0b"sv, "\0"sv, "a/\0"sv}) {
    const Result<RelPath> path = RelPath::parse(text);
    ASSERT_FALSE(path.has_value()) << text;
    EXPECT_EQ(path.error().code, Errc::kProtocol);
  }
}

TEST(RelPath, ErrorQuotesThePathEscaped) {
  EXPECT_EQ(RelPath::parse("a\n/../b").error().message, "not a plain relative path: a\\x0a/../b");
}

TEST(RelPath, HoldsTheBoundOnNames) {
  EXPECT_TRUE(RelPath::parse(std::string(kMaxNameBytes, 'n')).has_value());
  EXPECT_FALSE(RelPath::parse(std::string(kMaxNameBytes + 1, 'n')).has_value());
  EXPECT_TRUE(is_valid_name(std::string(kMaxNameBytes, 'n')));
  EXPECT_FALSE(is_valid_name(std::string(kMaxNameBytes + 1, 'n')));
}

TEST(RelPath, HoldsTheBoundOnPaths) {
  EXPECT_TRUE(RelPath::parse(deep_path(kMaxPathBytes)).has_value());
  const Result<RelPath> beyond = RelPath::parse(deep_path(kMaxPathBytes + 2));
  ASSERT_FALSE(beyond.has_value());
  EXPECT_EQ(beyond.error().code, Errc::kLimit);
}

TEST(RelPath, ChildAddsOneName) {
  const RelPath root;
  const Result<RelPath> a = root.child("a");
  ASSERT_TRUE(a.has_value());
  EXPECT_EQ(a->text(), "a");
  EXPECT_EQ(a->child("b")->text(), "a/b");
  for (const std::string_view bad : {"", ".", "..", "b/c", "/"}) {
    ASSERT_FALSE(a->child(bad).has_value()) << bad;
    EXPECT_EQ(a->child(bad).error().code, Errc::kProtocol);
  }
}

TEST(RelPath, ChildHoldsTheBoundOnPaths) {
  const RelPath path = *RelPath::parse(deep_path(kMaxPathBytes - 2));
  EXPECT_TRUE(path.child("a").has_value());
  const Result<RelPath> beyond = path.child("ab");
  ASSERT_FALSE(beyond.has_value());
  EXPECT_EQ(beyond.error().code, Errc::kLimit);
}

TEST(RelPath, ParentAndNameSplitAtTheLastSlash) {
  const RelPath path = *RelPath::parse("a/b/c");
  EXPECT_EQ(path.name(), "c");
  EXPECT_EQ(path.parent().text(), "a/b");
  EXPECT_EQ(path.parent().parent().text(), "a");
  EXPECT_TRUE(path.parent().parent().parent().is_root());
  EXPECT_TRUE(RelPath().parent().is_root());
  EXPECT_EQ(RelPath().name(), "");
}

TEST(RelPath, ParentAndNameGiveThePathAgain) {
  for (const std::string_view text : {"a", "a/b", "x y/\xff/z"}) {
    const RelPath path = *RelPath::parse(text);
    EXPECT_EQ(*path.parent().child(path.name()), path);
  }
}

}  // namespace
}  // namespace superlifter
