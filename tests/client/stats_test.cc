#include "client/stats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

namespace superlifter::client {
namespace {

Stats sample() {
  Stats stats;
  stats.files_total = 79'001;
  stats.files_unchanged = 79'000 - 5;
  stats.files_fetched = 3;
  stats.files_refetched = 1;
  stats.files_moved = 2;
  stats.files_deleted = 4;
  stats.bytes_total = 1'300'000'000;
  stats.bytes_received = 1'234'567;
  stats.bytes_sent = 890;
  stats.bytes_manifest = 12'345;
  stats.bytes_literal = 1'200'000;
  stats.generation = 17;
  stats.root = "00ff";
  stats.elapsed_s = 1.23456;
  stats.stale = 1;
  return stats;
}

TEST(Stats, JsonHasTheseFieldsInThisOrder) {
  EXPECT_EQ(
      sample().to_json(),
      R"({"files_total":79001,"files_unchanged":78995,"files_fetched":3,"files_patched":0,)"
      R"("files_refetched":1,"files_mismatched":0,"files_moved":2,"files_deleted":4,"bytes_total":1300000000,)"
      R"("bytes_received":1234567,"bytes_sent":890,"bytes_manifest":12345,)"
      R"("bytes_signature":0,"bytes_literal":1200000,"bytes_matched":0,"generation":17,)"
      R"("root":"00ff","elapsed_s":1.235,"stale":1})");
}

TEST(Stats, JsonIsOneObjectOnOneLine) {
  Stats stats;
  stats.root = "not\nhex\xff";
  stats.elapsed_s = std::numeric_limits<double>::infinity();
  stats.bytes_total = std::numeric_limits<uint64_t>::max();
  const std::string text = stats.to_json();
  EXPECT_EQ(text.find('\n'), std::string::npos);
  const nlohmann::json object = nlohmann::json::parse(text);
  EXPECT_EQ(object.size(), 19U);
  EXPECT_EQ(object["bytes_total"], std::numeric_limits<uint64_t>::max());
  EXPECT_TRUE(object["elapsed_s"].is_number());
  EXPECT_TRUE(object["generation"].is_number_unsigned());
  EXPECT_TRUE(object["root"].is_string());
}

TEST(Stats, TextNamesEveryNumber) {
  const std::string text = sample().to_text();
  for (const std::string_view part :
       {"79,001", "78,995", "1,300,000,000  (1.21 GiB)", "1,234,567", "1.2 s", "17", "00ff"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
  }
  EXPECT_TRUE(text.ends_with('\n'));
}

TEST(Stats, SummaryIsOneLineAndSaysOnlyWhatHappened) {
  EXPECT_EQ(sample().summary(),
            "79,001 files, 1.21 GiB: 3 fetched, 78,995 unchanged, 2 moved, 4 deleted, 1 fetched "
            "again, 1 stale; received 1.17 MiB in 1.2 s (976 KiB/s)");
  Stats patched = sample();
  patched.files_patched = 4546;
  patched.files_mismatched = 2;
  patched.bytes_matched = 30'000'000;
  EXPECT_NE(patched.summary().find(", 4,546 patched, 2 rebuilt in vain and fetched whole, "),
            std::string::npos);
  EXPECT_NE(patched.summary().find("; 28.6 MiB found here; received "), std::string::npos);
  Stats stats;
  stats.files_total = 1;
  EXPECT_EQ(stats.summary(), "1 file, 0 B: 0 fetched, 0 unchanged; received 0 B in 0.0 s (-)");
  stats.elapsed_s = 83;
  EXPECT_NE(stats.summary().find("in 1:23"), std::string::npos);
}

TEST(Stats, StrangeTimesDoNoHarm) {
  for (const double elapsed_s :
       {-1.0, 0.0, 1e-300, 1e300, std::nan(""), std::numeric_limits<double>::infinity()}) {
    Stats stats;
    stats.elapsed_s = elapsed_s;
    stats.bytes_received = std::numeric_limits<uint64_t>::max();
    EXPECT_FALSE(stats.summary().empty());
    EXPECT_FALSE(stats.to_text().empty());
    EXPECT_TRUE(nlohmann::json::accept(stats.to_json()));
  }
}

}  // namespace
}  // namespace superlifter::client
