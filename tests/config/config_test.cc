// Addresses to listen on, module names, and looking a module up.
#include "config/config.h"

#include <gtest/gtest.h>

#include <string>

#include "core/base/limits.h"

namespace superlifter::config {
namespace {

TEST(Config, ListenAddressIsPrintedAsItIsRead) {
  for (const char* text : {"127.0.0.1:8730", "[::]:8730", "0.0.0.0:0", "[2001:db8::1]:65535"}) {
    const Result<ListenAddress> address = parse_listen_address(text);
    ASSERT_TRUE(address.has_value()) << text;
    EXPECT_EQ(to_text(*address), text);
  }
}

TEST(Config, ListenAddressKnowsFamilyAndPort) {
  const Result<ListenAddress> v4 = parse_listen_address("192.0.2.7:80");
  ASSERT_TRUE(v4.has_value());
  EXPECT_TRUE(v4->address.is_v4());
  EXPECT_EQ(v4->port, 80);
  const Result<ListenAddress> any = parse_listen_address("[::]:8730");
  ASSERT_TRUE(any.has_value());
  EXPECT_EQ(any->address, session::Address{});
}

TEST(Config, MappedAddressIsTheIpv4One) {
  const Result<ListenAddress> mapped = parse_listen_address("[::ffff:192.0.2.7]:80");
  ASSERT_TRUE(mapped.has_value());
  EXPECT_EQ(to_text(*mapped), "192.0.2.7:80");
}

TEST(Config, ListenAddressNeedsNumericAddressAndPort) {
  for (const char* text : {"",
                           ":",
                           "8730",
                           "127.0.0.1",
                           "::",
                           "::1:8730",
                           "[::]",
                           "[::]8730",
                           "[127.0.0.1]:8730",
                           "localhost:8730",
                           ":8730",
                           "[]:8730",
                           "127.0.0.1:",
                           "127.0.0.1:65536",
                           "127.0.0.1:-1",
                           "127.0.0.1:+1",
                           "127.0.0.1:80x",
                           "127.0.0.1: 80",
                           " 127.0.0.1:80",
                           "127.0.0.1:80 ",
                           "127.0.0.256:80",
                           "127.1:80",
                           "[::%lo]:80",
                           "[[::]]:80",
                           "*:80",
                           "[::1:80"}) {
    const Result<ListenAddress> address = parse_listen_address(text);
    ASSERT_FALSE(address.has_value()) << text;
    EXPECT_EQ(address.error().code, Errc::kConfig);
    EXPECT_TRUE(address.error().message.starts_with("expected ")) << address.error().message;
  }
  EXPECT_FALSE(parse_listen_address(std::string_view("127.0.0.1\0:80", 13)).has_value());
}

TEST(Config, ModuleNameIsASafeSegment) {
  for (const char* name : {"a", "0", "debian", "Debian-12.1_x", "a.."}) {
    EXPECT_TRUE(is_module_name(name)) << name;
  }
  for (const char* name :
       {"", ".", "..", ".a", "-a", "_a", "a/b", "a b", "a\n", "\xC3\xA9", "a%"}) {
    EXPECT_FALSE(is_module_name(name)) << name;
  }
  EXPECT_TRUE(is_module_name(std::string(kMaxModuleNameBytes, 'a')));
  EXPECT_FALSE(is_module_name(std::string(kMaxModuleNameBytes + 1, 'a')));
}

TEST(Config, FindsModuleByItsExactName) {
  Config config;
  config.modules.push_back(Module{.name = "debian", .path = "/a"});
  config.modules.push_back(Module{.name = "ubuntu", .path = "/b"});
  ASSERT_NE(config.find_module("ubuntu"), nullptr);
  EXPECT_EQ(config.find_module("ubuntu")->path, "/b");
  EXPECT_EQ(config.find_module("Debian"), nullptr);
  EXPECT_EQ(config.find_module("debia"), nullptr);
  EXPECT_EQ(config.find_module(""), nullptr);
}

TEST(Config, EverybodyAdmitsBothFamiliesAndPipes) {
  const session::AccessRules rules = everybody();
  EXPECT_TRUE(rules.admits(session::parse_address("192.0.2.1").value()));
  EXPECT_TRUE(rules.admits(session::parse_address("2001:db8::1").value()));
  EXPECT_TRUE(rules.admits(std::nullopt));
}

}  // namespace
}  // namespace superlifter::config
