#include "client/source_uri.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "core/base/limits.h"

namespace superlifter::client {
namespace {

bool comes_back(const SourceUri& uri) {
  const Result<SourceUri> again = parse_source(uri.text());
  return again.has_value() && *again == uri;
}

struct Accepted {
  std::string_view text;
  std::string_view canonical;
  std::string_view user;
  std::string_view host;
  uint16_t port = 0;
  std::string_view module;
  std::string_view path;
};

TEST(SourceUri, TakesEveryForm) {
  using namespace std::string_view_literals;
  static const Accepted kCases[] = {
      {"host/mod", "superlifter://host/mod", "", "host", 0, "mod", ""},
      {"host/mod/", "superlifter://host/mod", "", "host", 0, "mod", ""},
      {"host/mod/a/b", "superlifter://host/mod/a/b", "", "host", 0, "mod", "a/b"},
      {"host/mod/a/b/", "superlifter://host/mod/a/b", "", "host", 0, "mod", "a/b"},
      {"host:1/mod", "superlifter://host:1/mod", "", "host", 1, "mod", ""},
      {"host:65535/mod", "superlifter://host:65535/mod", "", "host", 65535, "mod", ""},
      {"host:8730/mod", "superlifter://host/mod", "", "host", 0, "mod", ""},
      {"host:00080/mod", "superlifter://host:80/mod", "", "host", 80, "mod", ""},
      {"Mirror.Example.ORG/Mod", "superlifter://mirror.example.org/Mod", "", "mirror.example.org",
       0, "Mod", ""},
      {"192.0.2.1/m", "superlifter://192.0.2.1/m", "", "192.0.2.1", 0, "m", ""},
      {"[::1]/m", "superlifter://[::1]/m", "", "::1", 0, "m", ""},
      {"[2001:DB8:0:0::1]:99/m", "superlifter://[2001:db8::1]:99/m", "", "2001:db8::1", 99, "m",
       ""},
      {"[fe80::1%eth0]/m", "superlifter://[fe80::1%25eth0]/m", "", "fe80::1%eth0", 0, "m", ""},
      {"[fe80::1%25eth0]/m", "superlifter://[fe80::1%25eth0]/m", "", "fe80::1%eth0", 0, "m", ""},
      {"superlifter://h/m/p", "superlifter://h/m/p", "", "h", 0, "m", "p"},
      {"SUPERLIFTER://h:7/m", "superlifter://h:7/m", "", "h", 7, "m", ""},
      {"superlifter://h:/m", "superlifter://h/m", "", "h", 0, "m", ""},
      {"my_host.local./m", "superlifter://my_host.local./m", "", "my_host.local.", 0, "m", ""},
      {"h%6Fst/m", "superlifter://host/m", "", "host", 0, "m", ""},
      // Names are any bytes.
      {"h/m/a%20b", "superlifter://h/m/a%20b", "", "h", 0, "m", "a b"},
      {"h/m/a b", "superlifter://h/m/a%20b", "", "h", 0, "m", "a b"},
      {"h/m/100%25", "superlifter://h/m/100%25", "", "h", 0, "m", "100%"},
      {"h/m/%ff%0a", "superlifter://h/m/%FF%0A", "", "h", 0, "m", "\xff\n"},
      {"h/m/\xc3\xa4", "superlifter://h/m/%C3%A4", "", "h", 0, "m", "\xc3\xa4"},
      {"h/m/a?b#c", "superlifter://h/m/a%3Fb%23c", "", "h", 0, "m", "a?b#c"},
      {"superlifter://h/m/a%3Fb%23c", "superlifter://h/m/a%3Fb%23c", "", "h", 0, "m", "a?b#c"},
      {"h/m/libc++_1:2~3@x", "superlifter://h/m/libc++_1:2~3@x", "", "h", 0, "m", "libc++_1:2~3@x"},
      {"h/m/~/~user/x~", "superlifter://h/m/~/~user/x~", "", "h", 0, "m", "~/~user/x~"},
      {"h/m/-rf/...", "superlifter://h/m/-rf/...", "", "h", 0, "m", "-rf/..."},
      {"h/-m", "superlifter://h/-m", "", "h", 0, "-m", ""},
  };
  for (const Accepted& c : kCases) {
    const Result<SourceUri> uri = parse_source(c.text);
    ASSERT_TRUE(uri.has_value()) << c.text << ": " << uri.error().message;
    EXPECT_EQ(uri->scheme, Scheme::kTcp) << c.text;
    EXPECT_EQ(uri->text(), c.canonical) << c.text;
    EXPECT_EQ(uri->user, c.user) << c.text;
    EXPECT_EQ(uri->host, c.host) << c.text;
    EXPECT_EQ(uri->port, c.port) << c.text;
    EXPECT_EQ(uri->module, c.module) << c.text;
    EXPECT_EQ(uri->path.text(), c.path) << c.text;
    EXPECT_TRUE(comes_back(*uri)) << c.text;
  }
}

TEST(SourceUri, TakesSsh) {
  const Result<SourceUri> full =
      parse_source("ssh://me;fingerprint=ssh-ed25519-c1-b1-30@Host.example:2222/~/a%20b");
  ASSERT_TRUE(full.has_value()) << full.error().message;
  EXPECT_EQ(full->scheme, Scheme::kSsh);
  EXPECT_EQ(full->user, "me");
  EXPECT_EQ(full->fingerprint, "ssh-ed25519-c1-b1-30");
  EXPECT_EQ(full->host, "host.example");
  EXPECT_EQ(full->port, 2222);
  EXPECT_EQ(full->module, "~");
  EXPECT_EQ(full->path.text(), "a b");
  EXPECT_EQ(full->text(), "ssh://me;fingerprint=ssh-ed25519-c1-b1-30@host.example:2222/~/a%20b");
  EXPECT_TRUE(comes_back(*full));

  for (const std::string_view text :
       {"ssh://h/m", "ssh://u@h/m/p", "ssh://;fingerprint=x@h/m", "ssh://a%40b@h/m",
        "ssh://u@[::1]:22/~", "ssh://u@h/%7E/x", "ssh://u;FINGERPRINT=SHA256:a%2Fb+c=@h/m"}) {
    const Result<SourceUri> uri = parse_source(text);
    ASSERT_TRUE(uri.has_value()) << text << ": " << uri.error().message;
    EXPECT_TRUE(comes_back(*uri)) << text << " as " << uri->text();
  }
  EXPECT_EQ(parse_source("ssh://a%40b@h/m")->user, "a@b");
  // ssh's own configuration may say another port than 22, so that one is kept when given.
  EXPECT_EQ(parse_source("ssh://h:22/m")->port, 22);
  EXPECT_EQ(parse_source("ssh://h/m")->port, 0);
  EXPECT_EQ(parse_source("ssh://h/m")->port_or_default(), 22);
}

struct Refused {
  std::string_view text;
  std::string_view because;  // Part of the message.
};

TEST(SourceUri, RefusesWithTheReason) {
  using namespace std::string_view_literals;
  static const Refused kCases[] = {
      {"", "is empty"},
      {"host", "names no module"},
      {"host/", "names no module"},
      {"host//", "an empty name"},
      {"host//mod", "an empty name"},
      {"host/mod//", "an empty name"},
      {"host/mod//a", "an empty name"},
      {"host/mod/a//b", "an empty name"},
      {"h/m/a://b", "an empty name"},
      {"/host/mod", "no host"},
      {"./dir/file", "begins with '.'"},
      {"../dir", "begins with '.'"},
      {"superlifter:///mod", "no host"},
      {"superlifter://", "no host"},
      {"ssh://", "no host"},
      {"ssh://u@/m", "no host"},
      // Scheme.
      {"rsync://host/mod", "unknown scheme 'rsync'"},
      {"http://host/mod", "unknown scheme"},
      {"://host/mod", "unknown scheme"},
      {"host::mod/path", "rsync's form"},
      // Host.
      {"-oProxyCommand=x/mod", "begins with '-'"},
      {"ssh://-oProxyCommand=x/mod", "begins with '-'"},
      {"ssh://%2DoProxyCommand=x/mod", "begins with '-'"},
      {"ssh://u@-h/mod", "begins with '-'"},
      {"h ost/mod", "a host with ' '"},
      {"ho$st/mod", "a host with '$'"},
      {"h%00ost/mod", "control character"},
      {"h%0Aost/mod", "control character"},
      {"h%2Fost/mod", "a host with '/'"},
      {"h\xc3\xb6st/mod", "not ASCII"},
      {"h\nost/mod", "control character"},
      {"h\x7fost/mod", "control character"},
      {"h%/mod", "two hexadecimal digits"},
      {"h%4/mod", "two hexadecimal digits"},
      {"h%zz/mod", "two hexadecimal digits"},
      // IPv6.
      {"::1/mod", "more than one ':'"},
      {"2001:db8::1/mod", "written in brackets"},
      {"[::1/mod", "without its ']'"},
      {"[::1]x/mod", "after ']'"},
      {"[::1]80/mod", "after ']'"},
      {"[]/mod", "no IPv6 address"},
      {"[host]/mod", "no IPv6 address"},
      {"[127.0.0.1]/mod", "no IPv6 address"},
      {"[1:2:3]/mod", "no IPv6 address"},
      {"[::1%]/mod", "IPv6 zone"},
      {"[::1%-x]/mod", "IPv6 zone"},
      {"[::1%a;b]/mod", "IPv6 zone"},
      {"[::1%abcdefghijklmnop]/mod", "IPv6 zone"},
      // Port.
      {"host:/mod", "no port"},
      {"host:0/mod", "1 to 65535"},
      {"host:65536/mod", "1 to 65535"},
      {"host:100000/mod", "1 to 65535"},
      {"host:-1/mod", "1 to 65535"},
      {"host:+1/mod", "1 to 65535"},
      {"host: 1/mod", "1 to 65535"},
      {"host:1a/mod", "1 to 65535"},
      {"host:http/mod", "1 to 65535"},
      {"[::1]:0/mod", "1 to 65535"},
      {"superlifter://[::1]:70000/mod", "1 to 65535"},
      // User.
      {"u@host/mod", "ssh://user@host"},
      {"superlifter://u@host/mod", "ssh://user@host"},
      {"ssh://@host/mod", "an empty user"},
      {"ssh://-l@host/mod", "a user that begins with '-'"},
      {"ssh://%2Dl@host/mod", "a user that begins with '-'"},
      {"ssh://u:secret@host/mod", "a password"},
      {"ssh://u@v@host/mod", "more than one '@'"},
      {"ssh://a%0ab@host/mod", "a user with"},
      {"ssh://a%00b@host/mod", "a user with"},
      {"ssh://a b@host/mod", "a user with"},
      {"ssh://$(id)@host/mod", "a user with"},
      {"ssh://a`id`@host/mod", "a user with"},
      {"ssh://a%3Bid@host/mod", "a user with"},
      {"ssh://a%zz@host/mod", "two hexadecimal digits"},
      {"ssh://u;type=a@host/mod", "unknown parameter"},
      {"ssh://u;@host/mod", "unknown parameter"},
      {"ssh://u;fingerprint=@host/mod", "a fingerprint"},
      {"ssh://u;fingerprint=-o@host/mod", "a fingerprint"},
      {"ssh://u;fingerprint=a%20b@host/mod", "a fingerprint"},
      {"ssh://u;fingerprint=a,b=c@host/mod", "a fingerprint"},
      // Module and path.
      {"host/./a", "'.' or '..'"},
      {"host/../a", "'.' or '..'"},
      {"host/mod/..", "'.' or '..'"},
      {"host/mod/../x", "'.' or '..'"},
      {"host/mod/.", "'.' or '..'"},
      {"host/mod/./x", "'.' or '..'"},
      {"host/mod/%2e%2e/x", "'.' or '..'"},
      {"host/mod/%2E./x", "'.' or '..'"},
      {"host/mod/a%2fb", "encoded '/'"},
      {"host/mod%2Fb", "encoded '/'"},
      {"host/mod/..%2f..%2fetc", "encoded '/'"},
      {"host/mod/a%00b", "encoded NUL"},
      {"host/mod%00", "encoded NUL"},
      {"host/mod%0a", "a module name with a control character"},
      {"host/mod/a\nb", "control character"},
      {"host/mod/a\0b"sv, "control character"},
      {"host/mod/a%", "two hexadecimal digits"},
      {"host/mod/a%2", "two hexadecimal digits"},
      {"host/mod/%g0", "two hexadecimal digits"},
      {"host/~", "ssh://host/~"},
      {"host/~/x", "ssh://host/~"},
      {"host/~user/x", "ssh://host/~"},
      {"host/%7E/x", "ssh://host/~"},
      {"ssh://host/~user/x", "account's own home"},
      {"superlifter://host/mod/a?b", "%3F"},
      {"superlifter://host/mod/a#b", "%23"},
      {"ssh://host/mod?x", "%3F"},
  };
  for (const Refused& c : kCases) {
    const Result<SourceUri> uri = parse_source(c.text);
    ASSERT_FALSE(uri.has_value()) << c.text << " taken as " << uri->text();
    EXPECT_EQ(uri.error().code, Errc::kConfig) << c.text;
    EXPECT_NE(uri.error().message.find(c.because), std::string::npos)
        << c.text << ": " << uri.error().message;
    EXPECT_NE(uri.error().message.find("expected host[:port]/module"), std::string::npos);
  }
}

TEST(SourceUri, ErrorQuotesTheTextEscaped) {
  const std::string message = parse_source("ho\x1b[2Jst/m").error().message;
  EXPECT_TRUE(message.starts_with("source 'ho\\x1b[2Jst/m': ")) << message;
  const std::string longer = parse_source(std::string(300, 'a') + "\n").error().message;
  EXPECT_TRUE(longer.starts_with("source '" + std::string(256, 'a') + "…': ")) << longer;
}

TEST(SourceUri, HoldsItsBounds) {
  const auto accepts = [](const std::string& text) { return parse_source(text).has_value(); };
  EXPECT_TRUE(accepts(std::string(253, 'h') + "/m"));
  EXPECT_FALSE(accepts(std::string(254, 'h') + "/m"));
  EXPECT_TRUE(accepts("h/" + std::string(kMaxModuleNameBytes, 'm')));
  EXPECT_FALSE(accepts("h/" + std::string(kMaxModuleNameBytes + 1, 'm')));
  EXPECT_TRUE(accepts("h/m/" + std::string(kMaxNameBytes, 'n')));
  EXPECT_FALSE(accepts("h/m/" + std::string(kMaxNameBytes + 1, 'n')));
  EXPECT_TRUE(accepts("ssh://" + std::string(255, 'u') + "@h/m"));
  EXPECT_FALSE(accepts("ssh://" + std::string(256, 'u') + "@h/m"));
  std::string path;
  std::string encoded;
  while (path.size() < kMaxPathBytes) {
    const bool slash = path.size() % 2 == 1;
    path += slash ? "/" : "p";
    encoded += slash ? "/" : "%70";
  }
  EXPECT_TRUE(accepts("h/m/" + path));
  EXPECT_TRUE(
      accepts("h/m/" + encoded));  // The bound is on what it means, not on how it is written.
  EXPECT_FALSE(accepts("h/m/" + path + "/p"));
  EXPECT_FALSE(accepts("h/m/" + std::string(kMaxSourceBytes, 'x')));
}

TEST(SourceUri, EndpointShowsWhereToConnect) {
  EXPECT_EQ(parse_source("h/m")->endpoint(), "h:8730");
  EXPECT_EQ(parse_source("h:1/m")->endpoint(), "h:1");
  EXPECT_EQ(parse_source("[::1]/m")->endpoint(), "[::1]:8730");
  EXPECT_EQ(parse_source("ssh://h/m")->endpoint(), "h");
  EXPECT_EQ(parse_source("ssh://h:22/m")->endpoint(), "h:22");
}

TEST(SourceUri, DefaultDestinationIsTheLastName) {
  EXPECT_EQ(parse_source("h/mod")->default_destination(), "mod");
  EXPECT_EQ(parse_source("h/mod/")->default_destination(), "mod");
  EXPECT_EQ(parse_source("h/mod/a/b%20c/")->default_destination(), "b c");
}

TEST(SourceUri, HostAloneIsForModules) {
  for (const std::string_view text :
       {"host", "host/", "HOST", "superlifter://host", "superlifter://host/", "host:8730"}) {
    const Result<SourceUri> uri = parse_host(text);
    ASSERT_TRUE(uri.has_value()) << text << ": " << uri.error().message;
    EXPECT_EQ(uri->host, "host");
    EXPECT_EQ(uri->port_or_default(), kDefaultPort);
    EXPECT_TRUE(uri->module.empty());
    EXPECT_EQ(uri->text(), "superlifter://host");
  }
  EXPECT_EQ(parse_host("[::1]:99")->endpoint(), "[::1]:99");
  EXPECT_EQ(parse_host("ssh://u@host:5/")->user, "u");
  for (const std::string_view text :
       {"", "/", "host/mod", "host//", "host:0", "-h", "u@host", "h:", "::1", "rsync://h"}) {
    const Result<SourceUri> uri = parse_host(text);
    ASSERT_FALSE(uri.has_value()) << text;
    EXPECT_EQ(uri.error().code, Errc::kConfig);
    EXPECT_TRUE(uri.error().message.starts_with("host '")) << uri.error().message;
    EXPECT_NE(uri.error().message.find("expected host[:port]"), std::string::npos);
  }
}

// What every accepted source must hold, whatever the text was.
void expect_sound(const SourceUri& uri) {
  ASSERT_FALSE(uri.host.empty());
  ASSERT_NE(uri.host[0], '-');
  ASSERT_FALSE(uri.user.starts_with('-'));
  for (const char c : uri.host + uri.user + uri.fingerprint + uri.module) {
    ASSERT_TRUE(static_cast<unsigned char>(c) >= 0x20 && c != 0x7F);
  }
  ASSERT_TRUE(is_valid_name(uri.module));
  ASSERT_LE(uri.module.size(), kMaxModuleNameBytes);
  ASSERT_TRUE(RelPath::parse(uri.path.text()).has_value());
  if (uri.scheme == Scheme::kTcp) {
    ASSERT_TRUE(uri.user.empty() && uri.fingerprint.empty());
    ASSERT_FALSE(uri.module.starts_with('~'));
  }
  const std::string text = uri.text();
  for (const char c : text)
    ASSERT_TRUE(c > 0x20 && c < 0x7F) << text;
  const Result<SourceUri> again = parse_source(text);
  ASSERT_TRUE(again.has_value()) << text << ": " << again.error().message;
  ASSERT_EQ(*again, uri) << text;
}

TEST(SourceUri, AnyTextIsRefusedOrSound) {
  constexpr uint64_t kSeed = 8'730;
  SCOPED_TRACE(kSeed);
  std::mt19937_64 random(kSeed);
  static constexpr std::string_view kPieces[] = {"ssh://",
                                                 "superlifter://",
                                                 "http://",
                                                 "host",
                                                 "a.b",
                                                 "[::1]",
                                                 "[fe80::1%25eth0]",
                                                 "[",
                                                 "]",
                                                 "user@",
                                                 "user;fingerprint=ssh-rsa-01@",
                                                 ":",
                                                 ":22",
                                                 ":8730",
                                                 ":0",
                                                 "/",
                                                 "/",
                                                 "/",
                                                 "/mod",
                                                 "/~",
                                                 "..",
                                                 ".",
                                                 "%2f",
                                                 "%00",
                                                 "%2e",
                                                 "%41",
                                                 "%",
                                                 "~",
                                                 "-",
                                                 "?",
                                                 "#",
                                                 ";",
                                                 "@",
                                                 "\n",
                                                 "\xff",
                                                 " ",
                                                 "é",
                                                 "name",
                                                 "\\",
                                                 "'"};
  size_t accepted = 0;
  for (int i = 0; i < 200'000; ++i) {
    std::string text;
    for (uint64_t n = random() % 8; n > 0; --n)
      text += kPieces[random() % std::size(kPieces)];
    const Result<SourceUri> uri = parse_source(text);
    if (!uri) {
      ASSERT_EQ(uri.error().code, Errc::kConfig);
      continue;
    }
    ++accepted;
    ASSERT_NO_FATAL_FAILURE(expect_sound(*uri)) << text;
  }
  EXPECT_GT(accepted, 1'000U);  // The test says something.
}

TEST(SourceUri, EveryFlippedByteIsRefusedOrSound) {
  for (const std::string_view base :
       {"ssh://me;fingerprint=ssh-ed25519-c1@host:2222/~/a%20b", "[fe80::1%25eth0]:99/mod/a/b"}) {
    for (size_t at = 0; at < base.size(); ++at) {
      for (unsigned value = 0; value < 256; ++value) {
        std::string text(base);
        text[at] = static_cast<char>(value);
        const Result<SourceUri> uri = parse_source(text);
        if (!uri) continue;
        ASSERT_NO_FATAL_FAILURE(expect_sound(*uri)) << text;
      }
    }
  }
}

}  // namespace
}  // namespace superlifter::client
