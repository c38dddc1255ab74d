// Texts of each kind: what is taken, with which value, and what is refused, at the bound and beyond
// it.
#include "config/value.h"

#include <gtest/gtest.h>

#include <string>

#include "core/base/limits.h"

namespace superlifter::config {
namespace {

Status set(Kind kind, uint64_t least, uint64_t most, std::string_view text, uint64_t& number,
           std::string_view words = {}) {
  const Key key{
      .path = "test", .kind = kind, .help = "Test.", .least = least, .most = most, .words = words};
  if (kind != Kind::kCount) return set_value(key, text, &number);
  uint32_t count = 0;
  const Status status = set_value(key, text, &count);
  number = count;
  return status;
}

struct Good {
  Kind kind;
  const char* text;
  uint64_t number;
};

TEST(Value, NumbersHaveTheirUnit) {
  constexpr uint64_t kMost = UINT64_MAX;
  for (const Good& good : {Good{Kind::kCount, "0", 0},
                           {Kind::kCount, "4096", 4096},
                           {Kind::kDuration, "500ms", 500},
                           {Kind::kDuration, "10s", 10'000},
                           {Kind::kDuration, "0s", 0},
                           {Kind::kDuration, "10m", 600'000},
                           {Kind::kDuration, "4h", 14'400'000},
                           {Kind::kDuration, "2d", 172'800'000},
                           {Kind::kSize, "7B", 7},
                           {Kind::kSize, "1KiB", 1024},
                           {Kind::kSize, "1KB", 1000},
                           {Kind::kSize, "1kB", 1000},
                           {Kind::kSize, "10MB", 10'000'000},
                           {Kind::kSize, "10MiB", 10'485'760},
                           {Kind::kSize, "1GB", 1'000'000'000},
                           {Kind::kSize, "1GiB", 1'073'741'824},
                           {Kind::kSize, "1TB", 1'000'000'000'000},
                           {Kind::kSize, "1TiB", 1'099'511'627'776},
                           {Kind::kRate, "1KiB/s", 1024},
                           {Kind::kRate, "100MB/s", 100'000'000}}) {
    uint64_t number = 77;
    const uint64_t most = good.kind == Kind::kCount ? UINT32_MAX : kMost;
    EXPECT_TRUE(set(good.kind, 0, most, good.text, number).has_value()) << good.text;
    EXPECT_EQ(number, good.number) << good.text;
  }
}

struct Bad {
  Kind kind;
  const char* text;
};

TEST(Value, NumbersAreRefusedWhole) {
  for (const Bad& bad : {Bad{Kind::kCount, ""},
                         {Kind::kCount, "-1"},
                         {Kind::kCount, "+1"},
                         {Kind::kCount, "1.0"},
                         {Kind::kCount, "1e3"},
                         {Kind::kCount, "0x10"},
                         {Kind::kCount, "010"},
                         {Kind::kCount, "1_000"},
                         {Kind::kCount, " 1"},
                         {Kind::kCount, "1 "},
                         {Kind::kCount, "many"},
                         {Kind::kCount, "18446744073709551616"},
                         {Kind::kCount, "99999999999999999999999999"},
                         {Kind::kDuration, "10"},
                         {Kind::kDuration, "s"},
                         {Kind::kDuration, "10 s"},
                         {Kind::kDuration, "10S"},
                         {Kind::kDuration, "1h30m"},
                         {Kind::kDuration, "1.5h"},
                         {Kind::kDuration, "213503982335d"},
                         {Kind::kSize, "1"},
                         {Kind::kSize, "1K"},
                         {Kind::kSize, "1kib"},
                         {Kind::kSize, "16777216TiB"},
                         {Kind::kRate, "1KiB"},
                         {Kind::kRate, "/s"},
                         {Kind::kRate, "1/s"},
                         {Kind::kRate, "1KiB/m"},
                         {Kind::kRate, "8Mbit/s"}}) {
    uint64_t number = 77;
    const uint64_t most = bad.kind == Kind::kCount ? UINT32_MAX : UINT64_MAX;
    const Status status = set(bad.kind, 0, most, bad.text, number);
    ASSERT_FALSE(status.has_value()) << bad.text;
    EXPECT_EQ(status.error().code, Errc::kConfig);
    EXPECT_TRUE(status.error().message.starts_with("expected ")) << status.error().message;
  }
}

TEST(Value, NumbersKeepTheirBounds) {
  uint64_t number = 0;
  EXPECT_FALSE(set(Kind::kCount, 2, 9, "1", number).has_value());
  EXPECT_TRUE(set(Kind::kCount, 2, 9, "2", number).has_value());
  EXPECT_TRUE(set(Kind::kCount, 2, 9, "9", number).has_value());
  EXPECT_FALSE(set(Kind::kCount, 2, 9, "10", number).has_value());
  EXPECT_TRUE(set(Kind::kDuration, 1000, 60'000, "1m", number).has_value());
  EXPECT_FALSE(set(Kind::kDuration, 1000, 60'000, "60001ms", number).has_value());
  EXPECT_FALSE(set(Kind::kDuration, 1000, 60'000, "999ms", number).has_value());
}

TEST(Value, WordStandsForZeroOnlyWhereTheKeyHasIt) {
  uint64_t number = 77;
  EXPECT_TRUE(set(Kind::kDuration, 1000, 60'000, "never", number, "never").has_value());
  EXPECT_EQ(number, 0U);
  EXPECT_FALSE(set(Kind::kDuration, 1000, 60'000, "never", number).has_value());
  EXPECT_FALSE(set(Kind::kDuration, 1000, 60'000, "0s", number, "never").has_value());
}

TEST(Value, ShareHasAtMostTwoDecimals) {
  const Key key{.path = "test", .kind = Kind::kShare, .help = "Test.", .most = 10'000};
  struct Case {
    const char* text;
    double share;
  };
  for (const Case& good : {Case{"0%", 0},
                           {"1.5%", 0.015},
                           {"1.25%", 0.0125},
                           {"100%", 1},
                           {"100.0%", 1},
                           {"0.01%", 0.0001}}) {
    double share = 7;
    EXPECT_TRUE(set_value(key, good.text, &share).has_value()) << good.text;
    EXPECT_EQ(share, good.share) << good.text;
  }
  for (const char* bad : {"", "%", "1", "1.5", ".5%", "1.%", "1.234%", "100.01%", "101%", "-1%",
                          "1,5%", "1.5 %", "nan%", "1e1%"}) {
    double share = 7;
    EXPECT_FALSE(set_value(key, bad, &share).has_value()) << bad;
  }
}

TEST(Value, BooleanIsTrueOrFalse) {
  const Key key{.path = "test", .kind = Kind::kBoolean, .help = "Test."};
  bool value = false;
  EXPECT_TRUE(set_value(key, "true", &value).has_value());
  EXPECT_TRUE(value);
  EXPECT_TRUE(set_value(key, "false", &value).has_value());
  EXPECT_FALSE(value);
  for (const char* bad : {"", "yes", "True", "1", "on"}) {
    EXPECT_FALSE(set_value(key, bad, &value).has_value()) << bad;
  }
  EXPECT_EQ(suggest_value(key, "yes"), "true");
  EXPECT_EQ(suggest_value(key, "OFF"), "");
  EXPECT_EQ(suggest_value(key, "off"), "false");
  EXPECT_EQ(suggest_value(key, "flase"), "false");
}

TEST(Value, TextHasABoundAndNoControlCharacters) {
  const Key line{.path = "test", .kind = Kind::kText, .help = "Test.", .most = 4};
  const Key lines{.path = "test", .kind = Kind::kLines, .help = "Test.", .most = 4};
  std::string value;
  EXPECT_TRUE(set_value(line, "abcd", &value).has_value());
  EXPECT_EQ(value, "abcd");
  EXPECT_TRUE(set_value(line, "", &value).has_value());
  EXPECT_FALSE(set_value(line, "abcde", &value).has_value());
  EXPECT_FALSE(set_value(line, "a\nb", &value).has_value());
  EXPECT_FALSE(set_value(line, "\x1b[m", &value).has_value());
  EXPECT_TRUE(set_value(lines, "a\n\tb", &value).has_value());
  EXPECT_FALSE(set_value(lines, std::string_view("a\0b", 3), &value).has_value());
}

TEST(Value, PathIsAbsoluteAndBounded) {
  const Key path{.path = "test", .kind = Kind::kPath, .help = "Test."};
  const Key log{.path = "test", .kind = Kind::kLogFile, .help = "Test."};
  std::string value;
  EXPECT_TRUE(set_value(path, "/", &value).has_value());
  EXPECT_TRUE(set_value(path, "/" + std::string(kMaxPathBytes - 1, 'a'), &value).has_value());
  EXPECT_FALSE(set_value(path, "/" + std::string(kMaxPathBytes, 'a'), &value).has_value());
  EXPECT_FALSE(set_value(path, "", &value).has_value());
  EXPECT_FALSE(set_value(path, "srv", &value).has_value());
  EXPECT_FALSE(set_value(path, "~/srv", &value).has_value());
  EXPECT_FALSE(set_value(path, std::string_view("/a\0b", 4), &value).has_value());
  EXPECT_TRUE(set_value(log, "stderr", &value).has_value());
  EXPECT_TRUE(set_value(log, "/var/log/a", &value).has_value());
  EXPECT_FALSE(set_value(log, "stdout", &value).has_value());
}

TEST(Value, UserIsAnAccountName) {
  const Key key{.path = "test", .kind = Kind::kUser, .help = "Test."};
  std::string value;
  for (const char* good : {"superlifter", "_apt", "www-data", "a.b"}) {
    EXPECT_TRUE(set_value(key, good, &value).has_value()) << good;
  }
  EXPECT_TRUE(set_value(key, std::string(32, 'a'), &value).has_value());
  EXPECT_FALSE(set_value(key, std::string(33, 'a'), &value).has_value());
  for (const char* bad : {"", "0", "-a", "a b", "a:b", "a/b"}) {
    EXPECT_FALSE(set_value(key, bad, &value).has_value()) << bad;
  }
}

TEST(Value, PrefixSaysWhatIsWrong) {
  const Key key{.path = "test", .kind = Kind::kPrefixes, .help = "Test.", .most = 9};
  std::vector<session::Prefix> list;
  EXPECT_TRUE(set_value(key, "10.0.0.0/8", &list).has_value());
  EXPECT_TRUE(set_value(key, "2001:db8::/32", &list).has_value());
  EXPECT_EQ(list.size(), 2U);
  const Status host_bits = set_value(key, "10.0.0.1/8", &list);
  ASSERT_FALSE(host_bits.has_value());
  EXPECT_EQ(
      host_bits.error().message,
      "expected an address prefix such as 192.0.2.0/24 or 2001:db8::/32; the address has bits "
      "set beyond its prefix length");
  EXPECT_FALSE(set_value(key, "example.org", &list).has_value());
  EXPECT_EQ(list.size(), 2U);
}

TEST(Value, GlobSaysWhatIsWrong) {
  const Key key{.path = "test", .kind = Kind::kGlobs, .help = "Test.", .most = 9};
  std::vector<Glob> list;
  EXPECT_TRUE(set_value(key, "*.tmp", &list).has_value());
  const Status open_class = set_value(key, "[a", &list);
  ASSERT_FALSE(open_class.has_value());
  EXPECT_EQ(
      open_class.error().message,
      "expected a pattern such as *.tmp or /private/; pattern '[a': has a '[' without its ']'");
  EXPECT_FALSE(set_value(key, "", &list).has_value());
  EXPECT_TRUE(set_value(key, std::string(kMaxPathBytes, 'a'), &list).has_value());
  EXPECT_FALSE(set_value(key, std::string(kMaxPathBytes + 1, 'a'), &list).has_value());
  EXPECT_EQ(list.size(), 2U);
}

TEST(Value, SuggestsTheMissingUnitOrPort) {
  EXPECT_EQ(suggest_value(*find_key("limits.idle_timeout"), "60"), "60s");
  EXPECT_EQ(suggest_value(*find_key("limits.idle_timeout"), "9999999"), "");
  EXPECT_EQ(suggest_value(*find_key("limits.bandwidth"), "10MB"), "10MB/s");
  EXPECT_EQ(suggest_value(*find_key("limits.bandwidth"), "10M"), "10MB/s");
  EXPECT_EQ(suggest_value(*find_key("limits.bandwidth"), "unlimted"), "unlimited");
  EXPECT_EQ(suggest_value(*find_key("signatures.size"), "2"), "2%");
  EXPECT_EQ(suggest_value(*find_key("ops.listen"), "127.0.0.1"), "127.0.0.1:9730");
  EXPECT_EQ(suggest_value(*find_key("listen"), "::"), "[::]:8730");
  EXPECT_EQ(suggest_value(*find_key("listen"), "localhost"), "");
  EXPECT_EQ(suggest_value(*find_key("modules.*.rescan"), "nevr"), "never");
}

TEST(Value, ExpectationNamesBoundsInTheUnitsOfTheFile) {
  EXPECT_EQ(expectation(*find_key("workers")), "a whole number from 1 to 1024, or auto");
  EXPECT_EQ(expectation(*find_key("modules.*.rescan")),
            "a duration from 1s to 365d, such as 500ms, 10s, 10m or 4h, or never");
  EXPECT_EQ(expectation(*find_key("limits.bandwidth")),
            "a rate from 1KiB/s to 1TiB/s, such as 1KiB/s or 10MB/s, or unlimited");
  EXPECT_EQ(expectation(*find_key("signatures.size")),
            "a percentage from 0% to 100%, such as 1.5%");
  EXPECT_EQ(expectation(*find_key("log.format")), "text or json");
}

}  // namespace
}  // namespace superlifter::config
