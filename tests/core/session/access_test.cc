// Addresses, prefixes and the rules made of them: who is admitted, who is refused, and what is not
// even a rule.
#include "core/session/access.h"

#include <gtest/gtest.h>

#include <string>

namespace superlifter::session {
namespace {

Address address(std::string_view text) {
  return parse_address(text).value();
}
Prefix prefix(std::string_view text) {
  return parse_prefix(text).value();
}

AccessRules rules(std::initializer_list<const char*> allow,
                  std::initializer_list<const char*> deny) {
  AccessRules made;
  for (const char* text : allow)
    made.allow.push_back(prefix(text));
  for (const char* text : deny)
    made.deny.push_back(prefix(text));
  return made;
}

TEST(Access, AddressIsPrintedInItsShortForm) {
  EXPECT_EQ(to_text(address("192.0.2.1")), "192.0.2.1");
  EXPECT_EQ(to_text(address("2001:0DB8:0:0:0:0:0:1")), "2001:db8::1");
  EXPECT_EQ(to_text(address("::")), "::");
}

TEST(Access, MappedAddressIsTheIpv4One) {
  EXPECT_EQ(address("::ffff:192.0.2.1"), address("192.0.2.1"));
  EXPECT_TRUE(address("192.0.2.1").is_v4());
  EXPECT_FALSE(address("2001:db8::1").is_v4());
  EXPECT_FALSE(address("::192.0.2.1").is_v4());
}

TEST(Access, OnlyNumericAddressesAreRead) {
  for (const char* text : {"", " ", "localhost", "example.org", "1.2.3", "1.2.3.4.5", "256.0.0.1",
                           "01.2.3.4", "1.2.3.4 ", " 1.2.3.4", "::g", ":::", "1::2::3", "[::1]",
                           "fe80::1%lo", "1.2.3.4/8", "0x7f.0.0.1"}) {
    const Result<Address> read = parse_address(text);
    ASSERT_FALSE(read.has_value()) << text;
    EXPECT_EQ(read.error().code, Errc::kConfig);
  }
  EXPECT_FALSE(parse_address(std::string_view("1.2.3.4\0", 8)).has_value());
  EXPECT_FALSE(parse_address(std::string_view("::1\0x", 5)).has_value());
}

TEST(Access, PrefixLengthCountsInThe128BitForm) {
  EXPECT_EQ(prefix("10.0.0.0/8").length_bits, 104U);
  EXPECT_EQ(prefix("0.0.0.0/0").length_bits, 96U);
  EXPECT_EQ(prefix("192.0.2.1").length_bits, 128U);
  EXPECT_EQ(prefix("192.0.2.1/32").length_bits, 128U);
  EXPECT_EQ(prefix("::/0").length_bits, 0U);
  EXPECT_EQ(prefix("2001:db8::/32").length_bits, 32U);
  EXPECT_EQ(prefix("2001:db8::1").length_bits, 128U);
  EXPECT_EQ(prefix("::ffff:10.0.0.0/104").length_bits, 104U);
}

TEST(Access, WhatIsNotAPrefixIsRefused) {
  for (const char* text : {"", "/", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8",
                           "10.0.0.0/8x", "10.0.0.0/ 8", "10.0.0.0/8/8", "10/8", "2001:db8::/129",
                           "example.org/8", "example.org", "*", "10.0.0.0/99999999999"}) {
    const Result<Prefix> read = parse_prefix(text);
    ASSERT_FALSE(read.has_value()) << text;
    EXPECT_EQ(read.error().code, Errc::kConfig);
  }
}

TEST(Access, PrefixWithBitsBeyondItsLengthIsRefused) {
  for (const char* text : {"10.0.0.1/8", "192.0.2.128/24", "192.0.2.1/31", "2001:db8::1/32",
                           "::1/0", "1.0.0.0/0", "2001:db8:0:0:8000::/64"}) {
    EXPECT_FALSE(parse_prefix(text).has_value()) << text;
  }
  for (const char* text :
       {"10.0.0.0/8", "192.0.2.128/25", "192.0.2.2/31", "2001:db8:0:0:8000::/65"}) {
    EXPECT_TRUE(parse_prefix(text).has_value()) << text;
  }
}

TEST(Access, PrefixHoldsItsFirstAndLastAddressAndNoNeighbour) {
  const Prefix net = prefix("192.0.2.32/27");
  EXPECT_TRUE(net.contains(address("192.0.2.32")));
  EXPECT_TRUE(net.contains(address("192.0.2.63")));
  EXPECT_FALSE(net.contains(address("192.0.2.31")));
  EXPECT_FALSE(net.contains(address("192.0.2.64")));
  const Prefix wide = prefix("2001:db8::/33");
  EXPECT_TRUE(wide.contains(address("2001:db8:7fff:ffff:ffff:ffff:ffff:ffff")));
  EXPECT_FALSE(wide.contains(address("2001:db8:8000::")));
  const Prefix one = prefix("192.0.2.1");
  EXPECT_TRUE(one.contains(address("192.0.2.1")));
  EXPECT_FALSE(one.contains(address("192.0.2.0")));
}

TEST(Access, WhoeverMatchesNothingIsRefused) {
  EXPECT_FALSE(AccessRules{}.admits(address("192.0.2.1")));
  const AccessRules some = rules({"10.0.0.0/8"}, {});
  EXPECT_TRUE(some.admits(address("10.1.2.3")));
  EXPECT_FALSE(some.admits(address("11.0.0.0")));
  EXPECT_FALSE(some.admits(address("2001:db8::1")));
}

TEST(Access, DenyDecidesBeforeAllow) {
  const AccessRules some =
      rules({"0.0.0.0/0", "::/0", "10.1.2.3"}, {"10.0.0.0/8", "2001:db8::/32"});
  EXPECT_FALSE(some.admits(address("10.1.2.3")));
  EXPECT_FALSE(some.admits(address("::ffff:10.1.2.3")));
  EXPECT_FALSE(some.admits(address("2001:db8::1")));
  EXPECT_TRUE(some.admits(address("11.0.0.1")));
  EXPECT_TRUE(some.admits(address("2001:db9::1")));
}

TEST(Access, EachFamilyIsNamedByItself) {
  const AccessRules v4 = rules({"0.0.0.0/0"}, {});
  EXPECT_TRUE(v4.admits(address("192.0.2.1")));
  EXPECT_FALSE(v4.admits(address("2001:db8::1")));
  EXPECT_FALSE(v4.admits(address("::")));
  const AccessRules v6 = rules({"::/0"}, {});
  EXPECT_TRUE(v6.admits(address("2001:db8::1")));
  EXPECT_TRUE(v6.admits(address("::")));
  EXPECT_FALSE(v6.admits(address("192.0.2.1")));
  EXPECT_FALSE(v6.admits(address("::ffff:192.0.2.1")));
}

TEST(Access, MappedPrefixMeansIpv4) {
  const AccessRules mapped = rules({"::ffff:10.0.0.0/104"}, {});
  EXPECT_TRUE(mapped.admits(address("10.1.2.3")));
  EXPECT_FALSE(mapped.admits(address("11.1.2.3")));
}

TEST(Access, PipeIsAdmittedOnlyByTheListForEverybody) {
  EXPECT_TRUE(rules({"0.0.0.0/0", "::/0"}, {}).admits(std::nullopt));
  EXPECT_FALSE(AccessRules{}.admits(std::nullopt));
  EXPECT_FALSE(rules({"10.0.0.0/8", "2000::/3"}, {}).admits(std::nullopt));
  EXPECT_FALSE(rules({"0.0.0.0/0", "::/0"}, {"192.0.2.1"}).admits(std::nullopt));
  EXPECT_FALSE(rules({"0.0.0.0/0"}, {}).admits(std::nullopt));
  EXPECT_FALSE(rules({"::/0"}, {}).admits(std::nullopt));
}

}  // namespace
}  // namespace superlifter::session
