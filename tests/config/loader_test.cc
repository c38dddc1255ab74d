// The loader: every kind of mistake with its exact text and position, all of them in one run, and
// what a right document becomes.
#include "config/loader.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <string>
#include <vector>

#include "core/base/bytes.h"
#include "core/base/limits.h"
#include "tests/support/temp_tree.h"

namespace superlifter::config {
namespace {

using Lines = std::vector<std::string>;

constexpr const char* kModule = "modules: {a: {path: /srv}}\n";

Lines errors_of(const std::string& text) {
  return load_text(text, "f.yaml", CheckPaths::kNo).errors;
}

// Config of a right document.
Config load(const std::string& text) {
  Loaded loaded = load_text(text, "f.yaml", CheckPaths::kNo);
  EXPECT_EQ(loaded.errors, Lines{}) << text;
  return std::move(loaded.config);
}

// One mistake: a document, and the one error it must have.
struct Mistake {
  std::string text;
  std::string error;
};

void expect_each(const std::vector<Mistake>& mistakes) {
  for (const Mistake& mistake : mistakes) {
    EXPECT_EQ(errors_of(mistake.text), Lines{mistake.error}) << mistake.text;
  }
}

std::string with_module(const std::string& text) {
  return text + kModule;
}

TEST(Loader, LoadsTheExample) {
  const Loaded loaded =
      load_file(std::string(SUPERLIFTER_SOURCE_DIR) + "/config/superlifter.yaml", CheckPaths::kNo);
  EXPECT_EQ(loaded.errors, Lines{});
  const Config& config = loaded.config;
  EXPECT_EQ(config.user, "superlifter");
  EXPECT_EQ(config.motd, "Mirror of example.org");
  ASSERT_EQ(config.listen.size(), 1U);
  EXPECT_EQ(to_text(config.listen[0]), "[::]:8730");
  ASSERT_TRUE(config.ops_listen.has_value());
  EXPECT_EQ(to_text(*config.ops_listen), "127.0.0.1:9730");
  const Module* debian = config.find_module("debian");
  ASSERT_NE(debian, nullptr);
  EXPECT_EQ(debian->path, "/srv/mirror/debian");
  EXPECT_EQ(debian->comment, "Debian archive");
  EXPECT_EQ(debian->connections, 500U);
  ASSERT_EQ(debian->exclude.size(), 2U);
  EXPECT_EQ(debian->exclude[1].text(), "/project/trace/private/");
  ASSERT_EQ(debian->hold_while.size(), 1U);
  EXPECT_EQ(debian->hold_while[0].text(), "/Archive-Update-in-Progress-*");
  EXPECT_EQ(debian->access.allow.size(), 2U);
  EXPECT_EQ(debian->rescan_ms, 600'000U);
}

TEST(Loader, TakesEveryKey) {
  const Config config = load(R"(
listen: ["127.0.0.1:1", '[::1]:2', "127.0.0.1:0"]
workers: 7
user: www-data
motd: |
  Two
  lines
catalog: /c
log: {level: debug, format: json, access: /var/log/a}
engine: io_uring
proxy_protocol: [10.0.0.0/8, "2001:db8::/32"]
paths: false
limits:
  connections: 1
  connections_per_address: 2
  queue: 0
  hello_timeout: 500ms
  idle_timeout: 2m
  session_timeout: 1d
  drain_timeout: 0s
  minimum_rate: none
  bandwidth: 10MB/s
  generations: 9
signatures: {size: 0.25%}
sender: {}
ops: {listen: "[::1]:9"}
modules:
  one:
    path: /one
    comment: "x"
    exclude: ["*.a", "**/b"]
    allow: [10.0.0.0/8]
    deny: [10.1.0.0/16]
    connections: 3
    bandwidth: 1MiB/s
    list: false
    owners: true
    rescan: never
    watch: false
    hold_while: [/x]
  two: {path: /two}
)");
  ASSERT_EQ(config.listen.size(), 3U);
  EXPECT_EQ(to_text(config.listen[1]), "[::1]:2");
  EXPECT_EQ(config.workers, 7U);
  EXPECT_EQ(config.user, "www-data");
  EXPECT_EQ(config.motd, "Two\nlines\n");
  EXPECT_EQ(config.catalog, "/c");
  EXPECT_EQ(config.log.level, LogLevel::kDebug);
  EXPECT_EQ(config.log.format, LogFormat::kJson);
  EXPECT_EQ(config.log.access, "/var/log/a");
  EXPECT_EQ(config.engine, EngineChoice::kIoUring);
  EXPECT_EQ(config.proxy_protocol.size(), 2U);
  EXPECT_FALSE(config.paths);
  EXPECT_EQ(config.limits.connections, 1U);
  EXPECT_EQ(config.limits.connections_per_address, 2U);
  EXPECT_EQ(config.limits.queue, 0U);
  EXPECT_EQ(config.limits.hello_timeout_ms, 500U);
  EXPECT_EQ(config.limits.idle_timeout_ms, 120'000U);
  EXPECT_EQ(config.limits.session_timeout_ms, 86'400'000U);
  EXPECT_EQ(config.limits.drain_timeout_ms, 0U);
  EXPECT_EQ(config.limits.minimum_rate_bytes_per_s, 0U);
  EXPECT_EQ(config.limits.bandwidth_bytes_per_s, 10'000'000U);
  EXPECT_EQ(config.limits.generations, 9U);
  EXPECT_EQ(config.signature_share, 0.0025);
  EXPECT_EQ(to_text(config.ops_listen.value()), "[::1]:9");
  ASSERT_EQ(config.modules.size(), 2U);
  const Module& one = config.modules[0];
  EXPECT_EQ(one.name, "one");
  EXPECT_EQ(one.exclude.size(), 2U);
  EXPECT_EQ(one.access.allow.size(), 1U);
  EXPECT_EQ(one.access.deny.size(), 1U);
  EXPECT_EQ(one.connections, 3U);
  EXPECT_EQ(one.bandwidth_bytes_per_s, kMiB);
  EXPECT_FALSE(one.list);
  EXPECT_TRUE(one.owners);
  EXPECT_EQ(one.rescan_ms, 0U);
  EXPECT_FALSE(one.watch);
  EXPECT_EQ(one.hold_while.size(), 1U);
  EXPECT_EQ(config.modules[1].name, "two");
  EXPECT_EQ(config.modules[1].access.allow.size(), 2U);
  EXPECT_EQ(config.modules[1].rescan_ms, 600'000U);
}

TEST(Loader, LeavesDefaultsWhereNothingIsSaid) {
  const Config config = load("limits:\nlog:\nops: {}\nmodules:\n  a: {path: /srv}\n");
  ASSERT_EQ(config.listen.size(), 1U);
  EXPECT_EQ(to_text(config.listen[0]), "[::]:8730");
  EXPECT_EQ(config.limits.connections, 4096U);
  EXPECT_FALSE(config.ops_listen.has_value());
}

TEST(Loader, ListInTheFileReplacesTheDefault) {
  EXPECT_TRUE(load(with_module("listen: []\n")).listen.empty());
  const Config config = load("modules: {a: {path: /srv, allow: []}}");
  EXPECT_TRUE(config.modules[0].access.allow.empty());
}

TEST(Loader, ModulesKeepTheOrderOfTheFile) {
  const Config config = load("modules: {c: {path: /c}, a: {path: /a}, b: {path: /b}}");
  ASSERT_EQ(config.modules.size(), 3U);
  EXPECT_EQ(config.modules[0].name, "c");
  EXPECT_EQ(config.modules[2].name, "b");
}

TEST(Loader, UnknownKeyNamesTheNearest) {
  expect_each({
      {with_module("lisen: []\n"),
       "f.yaml:1:1: unknown key 'lisen': expected a known key (did you mean 'listen'?)"},
      {with_module("limits:\n  queue: 1\n  conections: 5\n"),
       "f.yaml:3:3: unknown key 'limits.conections': expected a known key (did you mean "
       "'connections'?)"},
      {"modules:\n  debian:\n    path: /srv\n    excludes: []\n",
       "f.yaml:4:5: unknown key 'modules.debian.excludes': expected a known key (did you mean "
       "'exclude'?)"},
      {with_module("hello_timeout: 10s\n"),
       "f.yaml:1:1: unknown key 'hello_timeout': expected a known key (did you mean "
       "'limits.hello_timeout'?)"},
      {with_module("log: {colour: red}\n"),
       "f.yaml:1:7: unknown key 'log.colour': expected one of level, format, access"},
      {with_module("sender: {size: 1}\n"),
       "f.yaml:1:10: unknown key 'sender.size': expected a known key (did you mean "
       "'signatures.size'?)"},
      {with_module("sender: {threshold: 1}\n"),
       "f.yaml:1:10: unknown key 'sender.threshold': expected no key here yet"},
      {with_module("limits.queue: 1\n"),
       "f.yaml:1:1: unknown key 'limits.queue': expected a known key (did you mean 'limits'?)"},
      {with_module("modules.*.path: /x\n"),
       "f.yaml:1:1: unknown key 'modules.*.path': expected a known key (did you mean 'modules'?)"},
      {with_module("\"a\\e[31m\": 1\n"),
       "f.yaml:1:1: unknown key 'a\\x1b[31m': expected one of listen, workers, user, motd, "
       "catalog, "
       "log, engine, proxy_protocol, paths, limits, signatures, sender, ops, modules"},
  });
}

TEST(Loader, DuplicateKeyNamesBothLines) {
  expect_each({
      {with_module("workers: 1\nworkers: 1\n"),
       "f.yaml:2:1: duplicate key 'workers': expected it once; it is in line 1 too"},
      {"modules:\n  a: {path: /a}\n  b: {path: /b}\n  a: {path: /c}\n",
       "f.yaml:4:3: duplicate key 'modules.a': expected it once; it is in line 2 too"},
      {"modules: {a: {path: /a, path: /b}}\n",
       "f.yaml:1:25: duplicate key 'modules.a.path': expected it once; it is in line 1 too"},
  });
}

TEST(Loader, WrongTypeSaysWhatWasFound) {
  expect_each({
      {with_module("workers: many\n"),
       "f.yaml:1:10: workers is 'many': expected a whole number from 1 to 1024, or auto"},
      {with_module("workers: [1]\n"),
       "f.yaml:1:10: workers is a list: expected a whole number from 1 to 1024, or auto"},
      {with_module("workers: {a: 1}\n"),
       "f.yaml:1:10: workers is a map: expected a whole number from 1 to 1024, or auto"},
      {with_module("workers:\n"),
       "f.yaml:1:1: workers is empty: expected a whole number from 1 to 1024, or auto"},
      {with_module("listen: 127.0.0.1:1\n"),
       "f.yaml:1:9: listen is '127.0.0.1:1': expected a list, each item an address and a port such "
       "as 127.0.0.1:8730 or [::]:8730"},
      {with_module("listen: [[]]\n"),
       "f.yaml:1:10: listen has a list: expected an address and a port such as 127.0.0.1:8730 or "
       "[::]:8730"},
      {with_module("listen:\n - '[::]:1'\n -\n - '[::]:2'\n"),
       "f.yaml:2:2: listen has an empty item: expected an address and a port such as "
       "127.0.0.1:8730 or [::]:8730"},
      {with_module("limits: 5\n"), "f.yaml:1:9: limits is '5': expected a map of keys"},
      {with_module("limits: [5]\n"), "f.yaml:1:9: limits is a list: expected a map of keys"},
      {with_module("paths: yes\n"),
       "f.yaml:1:8: paths is 'yes': expected true or false (did you mean 'true'?)"},
      {with_module("engine: uring\n"),
       "f.yaml:1:9: engine is 'uring': expected auto, io_uring or libuv (did you mean "
       "'io_uring'?)"},
      {with_module("log: {level: verbose}\n"),
       "f.yaml:1:14: log.level is 'verbose': expected debug, info, warning or error"},
      {with_module("catalog: var\n"), "f.yaml:1:10: catalog is 'var': expected an absolute path"},
      {with_module("user: 'a b'\n"), "f.yaml:1:7: user is 'a b': expected the name of a user"},
      {with_module("ops: {listen: '127.0.0.1'}\n"),
       "f.yaml:1:15: ops.listen is '127.0.0.1': expected an address and a port such as "
       "127.0.0.1:8730 "
       "or [::]:8730 (did you mean '127.0.0.1:9730'?)"},
      {with_module("listen: ['[::]:65536']\n"),
       "f.yaml:1:10: listen has '[::]:65536': expected a port from 0 to 65535 after the address"},
      {with_module("signatures: {size: 1.5}\n"),
       "f.yaml:1:20: signatures.size is '1.5': expected a percentage from 0% to 100%, such as 1.5% "
       "(did you mean '1.5%'?)"},
      {with_module("proxy_protocol: [proxy.example.org]\n"),
       "f.yaml:1:18: proxy_protocol has 'proxy.example.org': expected an address prefix such as "
       "192.0.2.0/24 or 2001:db8::/32"},
      {with_module("? [a]\n: 1\n"), "f.yaml:1:3: a list as a key: expected the name of a key"},
      {with_module("~: 1\n"), "f.yaml:1:1: nothing as a key: expected the name of a key"},
      {"- a\n- b\n", "f.yaml:1:1: the document is a list: expected a map of keys"},
      {"just text\n", "f.yaml:1:1: the document is 'just text': expected a map of keys"},
  });
}

TEST(Loader, OutOfBoundsNamesTheBounds) {
  const std::string timeout = ": expected a duration from 1ms to 1h, such as 500ms, 10s, 10m or 4h";
  const std::string count = ": expected a whole number from 1 to 1000000";
  expect_each({
      {with_module("limits: {connections: 0}\n"), "f.yaml:1:23: limits.connections is '0'" + count},
      {with_module("limits: {connections: 1000001}\n"),
       "f.yaml:1:23: limits.connections is '1000001'" + count},
      {with_module("limits: {connections: -1}\n"),
       "f.yaml:1:23: limits.connections is '-1'" + count},
      {with_module("limits: {hello_timeout: 0s}\n"),
       "f.yaml:1:25: limits.hello_timeout is '0s'" + timeout},
      {with_module("limits: {hello_timeout: 61m}\n"),
       "f.yaml:1:25: limits.hello_timeout is '61m'" + timeout},
      {with_module("limits: {hello_timeout: 10}\n"),
       "f.yaml:1:25: limits.hello_timeout is '10'" + timeout + " (did you mean '10s'?)"},
      {with_module("limits: {bandwidth: 1B/s}\n"),
       "f.yaml:1:21: limits.bandwidth is '1B/s': expected a rate from 1KiB/s to 1TiB/s, such as "
       "1KiB/s or 10MB/s, or unlimited"},
      {"modules: {a: {path: /a, rescan: 0s}}",
       "f.yaml:1:33: modules.a.rescan is '0s': expected a duration from 1s to 365d, such as 500ms, "
       "10s, 10m or 4h, or never"},
      {with_module("motd: " + std::string(kMaxMotdBytes + 1, 'm') + "\n"),
       "f.yaml:1:7: motd is '" + std::string(64, 'm') +
           "...': expected text of at most 4096 bytes"},
      {"modules: {a: {path: /a, comment: " + std::string(kMaxCommentBytes + 1, 'c') + "}}",
       "f.yaml:1:34: modules.a.comment is '" + std::string(64, 'c') +
           "...': expected one line of text, at most 1024 bytes"},
  });
  EXPECT_EQ(load(with_module("motd: " + std::string(kMaxMotdBytes, 'm') + "\n")).motd.size(),
            kMaxMotdBytes);
}

TEST(Loader, ModulesAreNamedAndHavePaths) {
  expect_each({
      {"workers: 1\n",
       "f.yaml:1:1: the document has no key 'modules': expected a map of at least one module"},
      {"modules: {}\n", "f.yaml:1:10: modules is empty: expected a map of at least one module"},
      {"modules:\n", "f.yaml:1:1: modules is empty: expected a map of at least one module"},
      {"modules: [a]\n", "f.yaml:1:10: modules is a list: expected a map of at least one module"},
      {"modules:\n  a:\n    list: true\n",
       "f.yaml:2:3: modules.a has no key 'path': expected the absolute path of a directory"},
      {"modules:\n  a:\n",
       "f.yaml:2:3: modules.a has no key 'path': expected the absolute path of a directory"},
      {"modules: {a: /srv}\n",
       "f.yaml:1:14: modules.a is '/srv': expected a map with at least the key 'path'"},
      {"modules: {a: {path: srv}}\n",
       "f.yaml:1:21: modules.a.path is 'srv': expected the absolute path of a directory"},
      {"modules: {a/b: {path: /srv}}\n",
       "f.yaml:1:11: module name 'a/b': expected letters, digits, '.', '_' and '-', the first a "
       "letter or digit, at most 128 bytes"},
      {"modules: {.a: {path: /srv}}\n",
       "f.yaml:1:11: module name '.a': expected letters, digits, '.', '_' and '-', the first a "
       "letter or digit, at most 128 bytes"},
      {"modules: {'': {path: /srv}}\n",
       "f.yaml:1:11: module name '': expected letters, digits, '.', '_' and '-', the first a "
       "letter "
       "or digit, at most 128 bytes"},
      {"modules: {a: {path: /srv, allow: [10.0.0.0/33]}}\n",
       "f.yaml:1:35: modules.a.allow has '10.0.0.0/33': expected a prefix length of 0 to 32"},
      {"modules: {a: {path: /srv, deny: [10.0.0.1/8]}}\n",
       "f.yaml:1:34: modules.a.deny has '10.0.0.1/8': expected an address prefix such as "
       "192.0.2.0/24 or 2001:db8::/32; the address has bits set beyond its prefix length"},
      {"modules: {a: {path: /srv, exclude: ['[a']}}\n",
       "f.yaml:1:37: modules.a.exclude has '[a': expected a pattern such as *.tmp or /private/; "
       "pattern '[a': has a '[' without its ']'"},
      {"modules: {a: {path: /srv, deny: }}\n",
       "f.yaml:1:27: modules.a.deny is empty: expected a list, each item an address prefix such as "
       "192.0.2.0/24 or 2001:db8::/32"},
  });
}

TEST(Loader, ModuleCountHasABound) {
  std::string text = "modules:\n";
  for (size_t i = 0; i < kMaxModules; ++i)
    text += " m" + std::to_string(i) + ": {path: /m}\n";
  EXPECT_EQ(load(text).modules.size(), kMaxModules);
  text += " n1: {path: /m}\n n2: {path: /m}\n";
  EXPECT_EQ(errors_of(text),
            Lines{"f.yaml:4098:2: module 'n1' is one too many: expected at most 4096"});
}

TEST(Loader, ListLengthHasABound) {
  std::string items = "x";
  for (size_t i = 1; i < kMaxConfigListItems; ++i)
    items += ",x";
  EXPECT_EQ(load("modules: {a: {path: /a, exclude: [" + items + "]}}").modules[0].exclude.size(),
            kMaxConfigListItems);
  EXPECT_EQ(errors_of("modules: {a: {path: /a, exclude: [" + items + ",x]}}"),
            Lines{"f.yaml:1:2083: modules.a.exclude has more than 1024 items: expected less"});
}

TEST(Loader, ListenAddressesDiffer) {
  expect_each({
      {with_module("listen: ['127.0.0.1:1', '127.0.0.1:2', '127.0.0.1:1']\n"),
       "f.yaml:1:40: listen has '127.0.0.1:1' twice: expected each address once"},
      {with_module("listen: ['[::0]:1', '[::]:1']\n"),
       "f.yaml:1:21: listen has '[::]:1' twice: expected each address once"},
      {with_module("listen: ['127.0.0.1:1']\nops: {listen: '127.0.0.1:1'}\n"),
       "f.yaml:2:15: ops.listen is '127.0.0.1:1', which is in listen too: expected another port"},
  });
  load(with_module("listen: ['127.0.0.1:0']\nops: {listen: '127.0.0.1:0'}\n"));
}

TEST(Loader, PathsAreLookedAtOnlyWhenAsked) {
  const tests::TempTree tree;
  tree.write("file", "x");
  tree.make_directory("directory");
  const auto check = [&](const std::string& below) {
    const std::string text = "modules: {a: {path: " + tree.path(below) + "}}";
    EXPECT_EQ(errors_of(text), Lines{});
    return load_text(text, "f.yaml", CheckPaths::kYes).errors;
  };
  const std::string shown = "f.yaml:1:21: modules.a.path is '" + tree.path();
  EXPECT_EQ(check("directory"), Lines{});
  EXPECT_EQ(check("absent"), Lines{shown + "/absent', which is not there: expected a directory"});
  EXPECT_EQ(check("file"), Lines{shown + "/file', which is not a directory: expected a directory"});
  EXPECT_EQ(
      check("file/x"),
      Lines{shown + "/file/x', which cannot be looked at (Not a directory): expected a directory"});
}

TEST(Loader, BrokenYamlSaysWhere) {
  expect_each({
      {"modules: {a: {path: /a}\n",
       "f.yaml:2:1: the bracket of line 1, column 10 is not closed by here: expected well-formed "
       "YAML"},
      {"modules: {a: {path: /a}",
       "f.yaml:1:24: the bracket of line 1, column 10 is not closed by here: expected well-formed "
       "YAML"},
      {"modules: {a: {path: /a}}\nlisten: [\n",
       "f.yaml:3:1: the bracket of line 2, column 9 is not closed by here: expected well-formed "
       "YAML"},
      {with_module("") + "user: b: c\n",
       "f.yaml:2:8: illegal map value: expected well-formed YAML"},
      {with_module("") + "]\n", "f.yaml:2:1: illegal flow end: expected well-formed YAML"},
      {"modules: {a: {path: /a}} more\n",
       "f.yaml:1:26: text that does not go on with what is above it: expected well-formed YAML"},
      {with_module("motd: *nothing\n"),
       "f.yaml:1:7: the referenced anchor is not defined: expected well-formed YAML"},
      {with_module("motd: \"\\q\"\n"),
       "f.yaml:1:10: unknown escape character: q: expected well-formed YAML"},
  });
}

TEST(Loader, QuoteThatIsNotClosedSwallowsNoSettings) {
  expect_each({
      {"modules:\n  a:\n    path: /a\n    comment: \"open\n    deny: [10.0.0.0/8]\n",
       "f.yaml:6:1: the quote after 'comment' in line 4 is not closed by here: expected "
       "well-formed "
       "YAML"},
      {with_module("") + "motd: 'open",
       "f.yaml:2:12: the quote after 'motd' in line 2 is not closed by here: expected well-formed "
       "YAML"},
  });
}

TEST(Loader, MistakesBeforeBrokenYamlAreReportedToo) {
  EXPECT_EQ(
      errors_of("workers: none\nlisen: []\nlimits:\n  queue: 1: 2\n"),
      (Lines{"f.yaml:1:10: workers is 'none': expected a whole number from 1 to 1024, or auto",
             "f.yaml:2:1: unknown key 'lisen': expected a known key (did you mean 'listen'?)",
             "f.yaml:4:11: illegal map value: expected well-formed YAML"}));
}

TEST(Loader, AllMistakesAreReportedInTheOrderOfTheFile) {
  EXPECT_EQ(
      errors_of("listen: [nowhere]\n"
                "modules:\n"
                "  a b:\n"
                "    path: /srv\n"
                "  debian:\n"
                "    rescan: soon\n"
                "    allow: [10.0.0.0/8, x, y]\n"
                "limits:\n"
                "  queue: lots\n"
                "  quue: 1\n"
                "limits: {}\n"),
      (Lines{
          "f.yaml:1:10: listen has 'nowhere': expected an address and a port such as "
          "127.0.0.1:8730 or [::]:8730",
          "f.yaml:3:3: module name 'a b': expected letters, digits, '.', '_' and '-', the first "
          "a letter or digit, at most 128 bytes",
          "f.yaml:5:3: modules.debian has no key 'path': expected the absolute path of a "
          "directory",
          "f.yaml:6:13: modules.debian.rescan is 'soon': expected a duration from 1s to 365d, "
          "such as 500ms, 10s, 10m or 4h, or never",
          "f.yaml:7:25: modules.debian.allow has 'x': expected an address prefix such as "
          "192.0.2.0/24 or 2001:db8::/32",
          "f.yaml:7:28: modules.debian.allow has 'y': expected an address prefix such as "
          "192.0.2.0/24 or 2001:db8::/32",
          "f.yaml:9:10: limits.queue is 'lots': expected a whole number from 0 to 1000000",
          "f.yaml:10:3: unknown key 'limits.quue': expected a known key (did you mean 'queue'?)",
          "f.yaml:11:1: duplicate key 'limits': expected it once; it is in line 8 too",
      }));
}

TEST(Loader, DocumentIsOneAndNotEmpty) {
  expect_each({
      {"", "f.yaml:1:1: the document is empty: expected at least the key 'modules'"},
      {"# nothing\n", "f.yaml:1:1: the document is empty: expected at least the key 'modules'"},
      {"---\n", "f.yaml:1:1: the document is empty: expected at least the key 'modules'"},
      {"~", "f.yaml:1:1: the document is empty: expected at least the key 'modules'"},
      {with_module("") + "---\nworkers: 2\n",
       "f.yaml:2:1: a second YAML document: expected one document in the file"},
  });
  load("%YAML 1.2\n---\n" + with_module("") + "...\n");
  load("\xEF\xBB\xBF" + with_module(""));
  load("workers: 1\r\n" + with_module(""));
}

TEST(Loader, TagsAreRefused) {
  expect_each({
      {with_module("motd: !include /etc/shadow\n"),
       "f.yaml:1:7: the tag '!include': expected a value without a tag"},
      {with_module("limits: !!omap {}\n"),
       "f.yaml:1:9: the tag 'tag:yaml.org,2002:omap': expected a value without a tag"},
  });
}

TEST(Loader, AliasesStandForWhatTheyName) {
  const Config config = load(
      "modules:\n"
      "  a: &usual\n    path: /srv\n    allow: &inside [10.0.0.0/8]\n"
      "  b: *usual\n"
      "  c: {path: /c, deny: *inside}\n");
  ASSERT_EQ(config.modules.size(), 3U);
  EXPECT_EQ(config.modules[1].name, "b");
  EXPECT_EQ(config.modules[1].path, "/srv");
  EXPECT_EQ(config.modules[1].access.allow.size(), 1U);
  EXPECT_EQ(config.modules[2].access.deny.size(), 1U);
}

TEST(Loader, WrongValueThatAliasesShareIsReportedOnceForEachUse) {
  EXPECT_EQ(errors_of("modules:\n  a: {path: /a, deny: &x [no, no]}\n  b: {path: /b, deny: *x}\n"),
            (Lines{"f.yaml:2:27: modules.a.deny has 'no': expected an address prefix such as "
                   "192.0.2.0/24 or 2001:db8::/32",
                   "f.yaml:2:27: modules.b.deny has 'no': expected an address prefix such as "
                   "192.0.2.0/24 or 2001:db8::/32",
                   "f.yaml:2:31: modules.a.deny has 'no': expected an address prefix such as "
                   "192.0.2.0/24 or 2001:db8::/32",
                   "f.yaml:2:31: modules.b.deny has 'no': expected an address prefix such as "
                   "192.0.2.0/24 or 2001:db8::/32"}));
}

TEST(Loader, FileThatCannotBeReadIsAnError) {
  const tests::TempTree tree;
  EXPECT_EQ(load_file(tree.path("none"), CheckPaths::kNo).errors,
            Lines{tree.path("none") +
                  ": cannot be opened: No such file or directory: expected a YAML file that can be "
                  "read"});
  EXPECT_EQ(
      load_file(tree.path(), CheckPaths::kNo).errors,
      Lines{tree.path() + ": cannot be read: Is a directory: expected a YAML file that can be "
                          "read"});
}

TEST(Loader, FileIsReadLikeText) {
  const tests::TempTree tree;
  tree.write("good", kModule);
  EXPECT_EQ(load_file(tree.path("good"), CheckPaths::kNo).errors, Lines{});
  tree.write("bad", "modules: 1");
  EXPECT_EQ(
      load_file(tree.path("bad"), CheckPaths::kNo).errors,
      Lines{tree.path("bad") + ":1:10: modules is '1': expected a map of at least one module"});
}

}  // namespace
}  // namespace superlifter::config
