#include "client/units.h"

#include <gtest/gtest.h>

#include <limits>

namespace superlifter::client {
namespace {

TEST(Units, BytesHaveThreeDigits) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(1), "1 B");
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1024), "1.00 KiB");
  EXPECT_EQ(human_bytes(1536), "1.50 KiB");
  EXPECT_EQ(human_bytes(10 * 1024), "10.0 KiB");
  EXPECT_EQ(human_bytes(12'697), "12.3 KiB");
  EXPECT_EQ(human_bytes(100 * 1024), "100 KiB");
  EXPECT_EQ(human_bytes((uint64_t{1} << 20) - 1), "1023 KiB");  // Never "1024 KiB".
  EXPECT_EQ(human_bytes(uint64_t{1} << 20), "1.00 MiB");
  EXPECT_EQ(human_bytes(uint64_t{3} << 30), "3.00 GiB");
  EXPECT_EQ(human_bytes(uint64_t{5} << 40), "5.00 TiB");
  EXPECT_EQ(human_bytes(uint64_t{5} << 50), "5.00 PiB");
  EXPECT_EQ(human_bytes(std::numeric_limits<uint64_t>::max()), "15.9 EiB");
}

TEST(Units, DurationsReadAsAClock) {
  EXPECT_EQ(human_duration(0), "0:00");
  EXPECT_EQ(human_duration(59), "0:59");
  EXPECT_EQ(human_duration(60), "1:00");
  EXPECT_EQ(human_duration(83), "1:23");
  EXPECT_EQ(human_duration(3'599), "59:59");
  EXPECT_EQ(human_duration(3'600), "1:00:00");
  EXPECT_EQ(human_duration(86'399), "23:59:59");
  EXPECT_EQ(human_duration(86'400), "1d 00:00:00");
  EXPECT_EQ(human_duration(3 * 86'400 + 4 * 3'600 + 5 * 60 + 6), "3d 04:05:06");
}

TEST(Units, CountsAreGrouped) {
  EXPECT_EQ(human_count(0), "0");
  EXPECT_EQ(human_count(999), "999");
  EXPECT_EQ(human_count(1'000), "1,000");
  EXPECT_EQ(human_count(79'001), "79,001");
  EXPECT_EQ(human_count(123'456), "123,456");
  EXPECT_EQ(human_count(1'234'567), "1,234,567");
  EXPECT_EQ(human_count(std::numeric_limits<uint64_t>::max()), "18,446,744,073,709,551,615");
}

TEST(Units, ReadsBytesWithAndWithoutUnits) {
  const struct {
    std::string_view text;
    uint64_t expected;
  } cases[] = {
      {"0", 0},
      {"500000", 500'000},
      {"17B", 17},
      {"1k", 1024},
      {"1K", 1024},
      {"1KiB", 1024},
      {"1kib", 1024},
      {"1.5MiB", 1'572'864},
      {"1.5 MiB", 1'572'864},
      {"1.5MiB/s", 1'572'864},
      {"10M", 10 << 20},
      {"2GiB", uint64_t{2} << 30},
      {"2T", uint64_t{2} << 40},
      {"1kB", 1'000},
      {"1KB", 1'000},
      {"2.5MB", 2'500'000},
      {"1GB", 1'000'000'000},
      {"0.000001GB", 1'000},
      {"18446744073709551615", std::numeric_limits<uint64_t>::max()},
      {"16777215TiB", uint64_t{16'777'215} << 40},
  };
  for (const auto& [text, expected] : cases) {
    const Result<uint64_t> value = parse_bytes(text);
    ASSERT_TRUE(value.has_value()) << text << ": " << value.error().message;
    EXPECT_EQ(*value, expected) << text;
  }
}

TEST(Units, RefusesWhatIsNoAmount) {
  for (const std::string_view text : {"",
                                      "KiB",
                                      "-1",
                                      "+1",
                                      " 1",
                                      "1.",
                                      ".5",
                                      "1.5.5",
                                      "1x",
                                      "1 0",
                                      "1KiBs",
                                      "1/s/s",
                                      "1KiB /s",
                                      "0x10",
                                      "1e3",
                                      "1,5",
                                      "fast",
                                      "1.1234567",
                                      "18446744073709551616",
                                      "16777216TiB",
                                      "99999999999999999999999",
                                      "1  KiB"}) {
    const Result<uint64_t> value = parse_bytes(text);
    ASSERT_FALSE(value.has_value()) << text;
    EXPECT_EQ(value.error().code, Errc::kConfig);
    EXPECT_NE(value.error().message.find("expected a number of bytes"), std::string::npos);
  }
}

}  // namespace
}  // namespace superlifter::client
