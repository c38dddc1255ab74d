// The command line of superlifter, as plain structs. parse_command_line prints nothing and ends
// nothing: main.cc writes the texts and returns the code, and tests read them.
//
// An option whose feature does not exist yet is not offered: a script that relies on it must fail
// here, not find out later that it was ignored.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "client/exit_code.h"
#include "client/filter.h"
#include "client/source_uri.h"

namespace superlifter::client {

constexpr unsigned kMaxJobs = 256;  // Writer threads; more than any disk profits from.
constexpr uint64_t kDefaultMaxEntries = 50'000'000;

// What to show on stderr.
enum class Output {
  kAuto,      // The display on a terminal, a line every few seconds elsewhere.
  kProgress,  // --progress: the same, with lines more often where there is no terminal.
  kQuiet,     // --quiet: errors only.
};

enum class StatsFormat { kNone, kHuman, kJson };

// For every command that talks to a server.
struct NetworkOptions {
  uint64_t timeout_ms = 60'000;          // --timeout: longest silence of the peer; 0: for ever.
  uint64_t connect_timeout_ms = 10'000;  // --contimeout: name lookup and connect; 0: the kernel's.
  uint64_t max_entries = kDefaultMaxEntries;  // --max-entries: what a server may make us hold.
};

struct PullOptions {
  SourceUri source;
  std::string destination;  // Never empty.
  bool destination_given = false;
  NetworkOptions network;
  Filter filter;
  uint64_t bandwidth_bytes_per_s = 0;  // --bwlimit; 0: unlimited.
  unsigned jobs = 0;                   // --jobs; 0: auto.
  bool dry_run = false;
  bool delete_extra = false;  // --delete
  bool owner = false;
  bool checksum = false;
  bool compress = false;    // Whole files too; what patches need is compressed in any case.
  bool whole_file = false;  // No deltas.
  bool in_place = false;    // --inplace
  Output output = Output::kAuto;
  StatsFormat stats = StatsFormat::kNone;
};

struct ModulesOptions {
  SourceUri host;  // module and path are empty.
  NetworkOptions network;
};

struct ListOptions {
  SourceUri source;
  NetworkOptions network;
  bool long_format = false;  // -l
  bool recursive = false;    // -R
};

struct CatOptions {
  SourceUri source;
  NetworkOptions network;
};

struct VerifyOptions {
  std::string destination;  // Never empty.
  unsigned jobs = 0;        // 0: auto.
  Output output = Output::kAuto;
};

using Command = std::variant<PullOptions, ModulesOptions, ListOptions, CatOptions, VerifyOptions>;

struct CommandLine {
  std::optional<Command> command;  // What to run; nothing: print the texts and return exit_code.
  ExitCode exit_code = ExitCode::kOk;  // kOk for help and version, kUsage for a mistake.
  std::string out;                     // For stdout.
  std::string err;                     // For stderr.
};

// Parses argv as main got it.
CommandLine parse_command_line(int argc, const char* const* argv);

}  // namespace superlifter::client
