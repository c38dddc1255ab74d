#include "config/schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "config/value.h"
#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/base/limits.h"

namespace superlifter::config {
namespace {

constexpr uint64_t kSecond = 1000;
constexpr uint64_t kMinute = 60 * kSecond;
constexpr uint64_t kHour = 60 * kMinute;
constexpr uint64_t kDay = 24 * kHour;

// More rows than this would make the shared segment itself a burden (core/shm).
constexpr uint64_t kMostConnections = 1'000'000;
constexpr uint64_t kMostWorkers = 1024;
constexpr uint64_t kMostGenerations = 1000;
constexpr uint64_t kMostRate = kGiB << 10;

constexpr Key kKeys[] = {
    {.path = "listen",
     .kind = Kind::kAddresses,
     .help = "Where to accept connections. Empty: nowhere, sessions come over ssh or inetd only.",
     .fallback = "[::]:8730",
     .most = kMaxListenAddresses,
     .field = [](Config& c, Module&) -> Field { return &c.listen; }},
    {.path = "workers",
     .kind = Kind::kCount,
     .help = "Worker processes. auto: one for each core.",
     .fallback = "auto",
     .least = 1,
     .most = kMostWorkers,
     .words = "auto",
     .field = [](Config& c, Module&) -> Field { return &c.workers; }},
    {.path = "user",
     .kind = Kind::kUser,
     .help = "Whom to become when started as root. Absent: superlifter if it exists, else nobody.",
     .field = [](Config& c, Module&) -> Field { return &c.user; }},
    {.path = "motd",
     .kind = Kind::kLines,
     .help = "Message that each client is shown.",
     .most = kMaxMotdBytes,
     .field = [](Config& c, Module&) -> Field { return &c.motd; }},
    {.path = "catalog",
     .kind = Kind::kPath,
     .help = "Directory that holds the catalogs of all modules.",
     .fallback = "/var/lib/superlifter",
     .field = [](Config& c, Module&) -> Field { return &c.catalog; }},
    {.path = "log", .kind = Kind::kSection, .help = "What is logged, and how."},
    {.path = "log.level",
     .kind = Kind::kChoice,
     .help = "Least severity of a line that is written to stderr.",
     .fallback = "info",
     .words = "debug|info|warning|error",
     .field = [](Config& c, Module&) -> Field { return &c.log.level; }},
    {.path = "log.format",
     .kind = Kind::kChoice,
     .help = "Form of the lines, the access log included.",
     .fallback = "text",
     .words = "text|json",
     .field = [](Config& c, Module&) -> Field { return &c.log.format; }},
    {.path = "log.access",
     .kind = Kind::kLogFile,
     .help = "Where one line for each session goes.",
     .fallback = "stderr",
     .field = [](Config& c, Module&) -> Field { return &c.log.access; }},
    {.path = "engine",
     .kind = Kind::kChoice,
     .help = "How workers talk to the kernel. auto: io_uring where the host allows it.",
     .fallback = "auto",
     .words = "auto|io_uring|libuv",
     .field = [](Config& c, Module&) -> Field { return &c.engine; }},
    {.path = "proxy_protocol",
     .kind = Kind::kPrefixes,
     .help = "Proxies that are believed about whom they speak for (PROXY protocol).",
     .most = kMaxConfigListItems,
     .field = [](Config& c, Module&) -> Field { return &c.proxy_protocol; }},
    {.path = "paths",
     .kind = Kind::kBoolean,
     .help = "In stdio mode without --config only: serve any path that the account may read.",
     .fallback = "true",
     .field = [](Config& c, Module&) -> Field { return &c.paths; }},
    {.path = "limits", .kind = Kind::kSection, .help = "What the whole server allows."},
    {.path = "limits.connections",
     .kind = Kind::kCount,
     .help = "Connections at one time, of all modules.",
     .fallback = "4096",
     .least = 1,
     .most = kMostConnections,
     .field = [](Config& c, Module&) -> Field { return &c.limits.connections; }},
    {.path = "limits.connections_per_address",
     .kind = Kind::kCount,
     .help = "Of these, from one client: an IPv4 address or an IPv6 /64.",
     .fallback = "16",
     .least = 1,
     .most = kMostConnections,
     .field = [](Config& c, Module&) -> Field { return &c.limits.connections_per_address; }},
    {.path = "limits.queue",
     .kind = Kind::kCount,
     .help = "Connections that may wait for a slot; any further is told to come back later.",
     .fallback = "256",
     .least = 0,
     .most = kMostConnections,
     .field = [](Config& c, Module&) -> Field { return &c.limits.queue; }},
    {.path = "limits.hello_timeout",
     .kind = Kind::kDuration,
     .help = "From accepting a connection to the end of its hello.",
     .fallback = "10s",
     .least = 1,
     .most = kHour,
     .field = [](Config& c, Module&) -> Field { return &c.limits.hello_timeout_ms; }},
    {.path = "limits.idle_timeout",
     .kind = Kind::kDuration,
     .help = "Without a frame either way.",
     .fallback = "60s",
     .least = 1,
     .most = kDay,
     .field = [](Config& c, Module&) -> Field { return &c.limits.idle_timeout_ms; }},
    {.path = "limits.session_timeout",
     .kind = Kind::kDuration,
     .help = "Length of one session.",
     .fallback = "4h",
     .least = 1,
     .most = 365 * kDay,
     .field = [](Config& c, Module&) -> Field { return &c.limits.session_timeout_ms; }},
    {.path = "limits.drain_timeout",
     .kind = Kind::kDuration,
     .help = "How long sessions may go on after SIGTERM, a reload or an upgrade.",
     .fallback = "10m",
     .least = 0,
     .most = 365 * kDay,
     .field = [](Config& c, Module&) -> Field { return &c.limits.drain_timeout_ms; }},
    {.path = "limits.minimum_rate",
     .kind = Kind::kRate,
     .help = "A client that takes less on average, after a grace period, is disconnected.",
     .fallback = "1KiB/s",
     .least = 1,
     .most = kMostRate,
     .words = "none",
     .field = [](Config& c, Module&) -> Field { return &c.limits.minimum_rate_bytes_per_s; }},
    {.path = "limits.bandwidth",
     .kind = Kind::kRate,
     .help = "What all sessions together may send.",
     .fallback = "unlimited",
     .least = kKiB,
     .most = kMostRate,
     .words = "unlimited",
     .field = [](Config& c, Module&) -> Field { return &c.limits.bandwidth_bytes_per_s; }},
    {.path = "limits.generations",
     .kind = Kind::kCount,
     .help = "Generations of a module that are kept for sessions that still read them.",
     .fallback = "4",
     .least = 1,
     .most = kMostGenerations,
     .field = [](Config& c, Module&) -> Field { return &c.limits.generations; }},
    {.path = "signatures",
     .kind = Kind::kSection,
     .help = "Block signatures in the catalog, with which clients find what they have already."},
    {.path = "signatures.size",
     .kind = Kind::kShare,
     .help =
         "Their size with the garbage beside them, of the content, at most. Decides how fine they "
         "are: blocks of 1 KiB from 1.39%, 4 KiB from 0.35%, 16 KiB from 0.087%, 64 KiB from "
         "0.022%; below, none are kept. When it has changed, files are read again.",
     .fallback = "1.5%",
     .least = 0,
     .most = 10'000,
     .field = [](Config& c, Module&) -> Field { return &c.signature_share; }},
    {.path = "sender", .kind = Kind::kSection, .help = "Thresholds of the sender."},
    {.path = "ops", .kind = Kind::kSection, .help = "Metrics, health and status over HTTP."},
    {.path = "ops.listen",
     .kind = Kind::kAddress,
     .help = "Where the ops process answers, 127.0.0.1:9730 by custom. Absent: there is none.",
     .field = [](Config& c, Module&) -> Field { return &c.ops_listen; }},
    {.path = "modules",
     .kind = Kind::kModules,
     .help = "The trees that are served, by name: letters, digits, '.', '_' and '-'.",
     .presence = Presence::kRequired},
    {.path = "modules.*.path",
     .kind = Kind::kDirectory,
     .help = "The directory that is served.",
     .presence = Presence::kRequired,
     .field = [](Config&, Module& m) -> Field { return &m.path; }},
    {.path = "modules.*.comment",
     .kind = Kind::kText,
     .help = "What the list of modules says of it.",
     .most = kMaxCommentBytes,
     .field = [](Config&, Module& m) -> Field { return &m.comment; }},
    {.path = "modules.*.exclude",
     .kind = Kind::kGlobs,
     .help =
         "What is not served. A leading / means the module's root, a trailing / directories only.",
     .most = kMaxConfigListItems,
     .field = [](Config&, Module& m) -> Field { return &m.exclude; }},
    {.path = "modules.*.allow",
     .kind = Kind::kPrefixes,
     .help = "Who may open it. Looked at after deny; whoever matches neither is refused.",
     .fallback = "0.0.0.0/0 ::/0",
     .most = kMaxConfigListItems,
     .field = [](Config&, Module& m) -> Field { return &m.access.allow; }},
    {.path = "modules.*.deny",
     .kind = Kind::kPrefixes,
     .help = "Who may not, whatever allow says.",
     .most = kMaxConfigListItems,
     .field = [](Config&, Module& m) -> Field { return &m.access.deny; }},
    {.path = "modules.*.connections",
     .kind = Kind::kCount,
     .help = "Sessions of this module at one time. unlimited: limits.connections alone counts.",
     .fallback = "unlimited",
     .least = 1,
     .most = kMostConnections,
     .words = "unlimited",
     .field = [](Config&, Module& m) -> Field { return &m.connections; }},
    {.path = "modules.*.bandwidth",
     .kind = Kind::kRate,
     .help = "What its sessions together may send.",
     .fallback = "unlimited",
     .least = kKiB,
     .most = kMostRate,
     .words = "unlimited",
     .field = [](Config&, Module& m) -> Field { return &m.bandwidth_bytes_per_s; }},
    {.path = "modules.*.list",
     .kind = Kind::kBoolean,
     .help =
         "Whether the list of modules names it. Whoever knows the name can open it all the same.",
     .fallback = "true",
     .field = [](Config&, Module& m) -> Field { return &m.list; }},
    {.path = "modules.*.owners",
     .kind = Kind::kBoolean,
     .help = "Whether owner and group names of its files are given away.",
     .fallback = "false",
     .field = [](Config&, Module& m) -> Field { return &m.owners; }},
    {.path = "modules.*.rescan",
     .kind = Kind::kDuration,
     .help = "How often the whole tree is looked at for changes.",
     .fallback = "10m",
     .least = kSecond,
     .most = 365 * kDay,
     .words = "never",
     .field = [](Config&, Module& m) -> Field { return &m.rescan_ms; }},
    {.path = "modules.*.watch",
     .kind = Kind::kBoolean,
     .help = "Whether file-system events bring a rescan of what they name.",
     .fallback = "true",
     .field = [](Config&, Module& m) -> Field { return &m.watch; }},
    {.path = "modules.*.hold_while",
     .kind = Kind::kGlobs,
     .help =
         "While a file matches, a sync from upstream is under way and nothing new is published.",
     .most = kMaxConfigListItems,
     .field = [](Config&, Module& m) -> Field { return &m.hold_while; }},
};

bool is_of_module(const Key& key) {
  return key.path.starts_with("modules.");
}

void apply_fallback(const Key& key, Config& config, Module& module) {
  if (key.field == nullptr) return;
  std::string_view rest = key.fallback;
  while (!rest.empty()) {
    // Only lists have several items; no other fallback holds a space.
    const size_t space = rest.find(' ');
    const Status status = set_value(key, rest.substr(0, space), key.field(config, module));
    CHECK(status.has_value());
    rest.remove_prefix(space == std::string_view::npos ? rest.size() : space + 1);
  }
}

std::string describe_fallback(const Key& key) {
  if (key.presence == Presence::kRequired) return "required";
  if (is_list(key.kind)) {
    std::string items(key.fallback);
    for (size_t at = items.find(' '); at != std::string::npos; at = items.find(' ', at + 4)) {
      items.replace(at, 1, "\", \"");
    }
    return items.empty() ? "`[]`" : fmt::format("`[\"{}\"]`", items);
  }
  return key.fallback.empty() ? "none" : fmt::format("`{}`", key.fallback);
}

std::string describe_value(const Key& key) {
  std::string value = expectation(key);
  if (is_list(key.kind)) value = fmt::format("list of at most {}: {}", key.most, value);
  // A bar or a star would be read as Markdown.
  std::string out;
  for (const char c : value) {
    if (c == '|' || c == '*') out += '\\';
    out += c;
  }
  return out;
}

// One section: its heading, and the table of the keys directly below `prefix`.
std::string describe_section(std::string_view title, std::string_view help,
                             std::string_view prefix) {
  std::string out = fmt::format("\n## {}\n\n{}\n", title, help);
  std::string rows;
  for (const Key& key : schema()) {
    if (key.field == nullptr || !key.path.starts_with(prefix)) continue;
    const std::string_view name = key.path.substr(prefix.size());
    if (name.find('.') != std::string_view::npos) continue;
    rows += fmt::format("| `{}` | {} | {} | {} |\n", name, describe_value(key),
                        describe_fallback(key), key.help);
  }
  if (rows.empty()) return out + "\nIt has no keys yet; `{}` is accepted.\n";
  return out + "\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n" + rows;
}

}  // namespace

std::span<const Key> schema() {
  return kKeys;
}

const Key* find_key(std::string_view path) {
  const auto* const found = std::find_if(std::begin(kKeys), std::end(kKeys),
                                         [&](const Key& key) { return key.path == path; });
  return found == std::end(kKeys) ? nullptr : found;
}

bool is_list(Kind kind) {
  return kind == Kind::kAddresses || kind == Kind::kPrefixes || kind == Kind::kGlobs;
}

Config default_config() {
  Config config;
  Module unused;
  config.listen.clear();
  for (const Key& key : kKeys) {
    if (!is_of_module(key)) apply_fallback(key, config, unused);
  }
  return config;
}

Module default_module() {
  Config unused;
  Module module;
  module.access = {};
  for (const Key& key : kKeys) {
    if (is_of_module(key)) apply_fallback(key, unused, module);
  }
  return module;
}

std::string reference_markdown() {
  std::string out =
      "<!-- Made from the table in config/schema.cc by reference_markdown(). Do not edit: a test\n"
      "     compares the two, and rewrites this file when SUPERLIFTER_UPDATE_FILES is set. -->\n"
      "\n# Configuration reference\n\n"
      "`superlifterd --config FILE` reads YAML. `superlifterd check-config` reports every mistake "
      "at\n"
      "once, with file, line and column. [superlifter.yaml](superlifter.yaml) is a commented "
      "example.\n"
      "\nUnits: durations are a whole number and `ms`, `s`, `m`, `h` or `d`; sizes one and `B`, "
      "`KiB`,\n"
      "`MiB`, `GiB`, `TiB` (of 1024) or `KB`, `MB`, `GB`, `TB` (of 1000); rates are a size and "
      "`/s`.\n"
      "Patterns have rsync's meaning: `*` and `?` stop at a `/`, `**` does not. A document has at\n"
      "most 1 MiB, with its aliases written out.\n";
  out += describe_section("Top level", "Keys of the document itself.", "");
  for (const Key& key : kKeys) {
    if (key.kind == Kind::kSection) {
      out += describe_section(fmt::format("`{}`", key.path), key.help, std::string(key.path) + ".");
    } else if (key.kind == Kind::kModules) {
      out += describe_section("`modules.NAME`", key.help, std::string(key.path) + ".*.");
    }
  }
  return out;
}

}  // namespace superlifter::config
