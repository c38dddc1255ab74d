// The settings as plain structs, units in the names. Filled by loader from YAML, or by --serve.
//
// The defaults are those of the table in schema.cc, from which reference.md is made too. The
// initializers below repeat them, so that a Config or Module made by hand is a usable one; a test
// compares the two. The one exception is Config::listen, which stays empty: nothing is bound that
// nobody asked for. schema.h has default_config(), where it is filled.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/glob.h"
#include "core/base/log.h"
#include "core/base/result.h"
#include "core/session/access.h"

namespace superlifter::config {

constexpr uint64_t kUnlimited = 0;  // For rates.
constexpr uint16_t kDefaultPort = 8730;
constexpr uint16_t kDefaultOpsPort = 9730;

// Where to listen: a numeric address and a port, 0 for one that the kernel picks.
struct ListenAddress {
  session::Address address;
  uint16_t port = 0;

  friend bool operator==(const ListenAddress&, const ListenAddress&) = default;
};
// "127.0.0.1:8730", "[::]:8730": the port is needed, and so are the brackets around an IPv6
// address. kConfig for anything else; the message is "expected ...", without the text itself.
[[nodiscard]] Result<ListenAddress> parse_listen_address(std::string_view text);
// The same form; parse_listen_address(to_text(a)) is a.
std::string to_text(const ListenAddress& address);

// The rules of a module that says nothing: allow 0.0.0.0/0 and ::/0, deny nobody.
session::AccessRules everybody();

// A name that a module may have: [A-Za-z0-9][A-Za-z0-9._-]*, at most kMaxModuleNameBytes. It is a
// segment of URLs and of catalog directories, and stands in log lines and shell commands.
bool is_module_name(std::string_view name);

enum class EngineChoice : uint8_t { kAuto, kIoUring, kLibuv };

struct LogSettings {
  LogLevel level = LogLevel::kInfo;
  LogFormat format = LogFormat::kText;
  std::string access = "stderr";  // "stderr" or a file.
};

struct Limits {
  uint32_t connections = 4096;
  uint32_t connections_per_address = 16;
  uint32_t queue = 256;
  uint64_t hello_timeout_ms = 10'000;
  uint64_t idle_timeout_ms = 60'000;
  uint64_t session_timeout_ms = uint64_t{4} * 3600'000;
  uint64_t drain_timeout_ms = uint64_t{10} * 60'000;
  uint64_t minimum_rate_bytes_per_s = 1024;
  uint64_t bandwidth_bytes_per_s = kUnlimited;
  uint32_t generations = 4;
};

struct Module {
  std::string name = {};
  std::string path = {};
  std::string comment = {};
  std::vector<Glob> exclude = {};
  session::AccessRules access = everybody();
  uint32_t connections = 0;  // 0: the server's limit alone.
  uint64_t bandwidth_bytes_per_s = kUnlimited;
  bool list = true;
  bool owners = false;
  uint64_t rescan_ms = uint64_t{10} * 60'000;  // 0: never by itself.
  bool watch = true;
  std::vector<Glob> hold_while = {};
};

struct Config {
  std::vector<ListenAddress> listen = {};  // Empty: no socket (sessions over ssh or inetd only).
  unsigned workers = 0;                    // 0: one a core.
  std::string user = {};                   // Empty: superlifter if it exists, else nobody.
  std::string motd = {};
  std::string catalog = "/var/lib/superlifter";
  LogSettings log;
  EngineChoice engine = EngineChoice::kAuto;
  std::vector<session::Prefix> proxy_protocol = {};
  bool paths = true;
  Limits limits;
  double signature_share = 0.015;  // Of the content, garbage included; 0: none are kept.
  std::optional<ListenAddress> ops_listen = {};
  std::vector<Module> modules = {};

  // The module with exactly this name, or null. Borrowed: lives as long as `modules` is not
  // changed.
  const Module* find_module(std::string_view name) const;
};

}  // namespace superlifter::config
