// Options: the command line of superlifterd as plain data (DESIGN.md section 7). Nothing is opened
// or read here; settings.h does that.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/config.h"
#include "core/base/result.h"

namespace superlifter::daemon {

constexpr const char* kDefaultConfigFile = "/etc/superlifter/superlifter.yaml";

enum class Mode {
  kRun,          // Nothing said: stdio when stdin is a connected socket, else daemon.
  kDaemon,       // --daemon, or --serve.
  kStdio,        // --stdio, --inetd.
  kCheckConfig,  // check-config
  kIndex,        // index
  kChild,        // Started by the master; see inheritance.h.
  kShow,         // --help, --version: `text` is to be printed.
};

struct ServeDirectory {
  std::string path;  // As given.
  std::string name;  // Empty: the last segment of the real path.
};

enum class ChildRole { kWorker, kIndexer };

// What the master tells its children on their command line; see inheritance.h.
struct ChildOptions {
  ChildRole role = ChildRole::kWorker;
  uint32_t index = 0;         // Of the worker.
  uint32_t listen_count = 0;  // Listening sockets handed over.
};

struct Options {
  Mode mode = Mode::kRun;
  std::string config_file = kDefaultConfigFile;
  bool config_given = false;
  std::vector<ServeDirectory> serve;
  std::vector<config::ListenAddress> listen;  // Overrides the config's, when not empty.
  std::vector<std::string> modules;           // index: empty for all.
  unsigned threads = 0;                       // index: 0 for all cores.
  ChildOptions child;
  std::string text;  // kShow
};

// "DIR" or "DIR=NAME". The text is split at its last '=', unless a '/' follows it: a directory
// whose name holds a '=' is written with a slash behind it.
ServeDirectory parse_serve(const std::string& text);

// kConfig with a message for the user when the command line is wrong.
[[nodiscard]] Result<Options> parse_options(int argc, const char* const* argv);

}  // namespace superlifter::daemon
