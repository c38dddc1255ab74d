// Settings: the configuration that a command line names, from a file or made for --serve, and a
// snapshot of it that the master hands to its children. A child reads the snapshot and never the
// file: what was checked is what runs, whatever happens to the file meanwhile.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "core/base/bytes.h"
#include "core/base/result.h"
#include "daemon/options.h"

namespace superlifter::daemon {

struct Settings {
  config::Config config;
  Bytes snapshot;                 // For read_snapshot.
  bool serves_directory = false;  // --serve
};

// Reads and checks the configuration, module paths included. kConfig: the message holds one mistake
// a line. The catalog directory of --serve is made here (mode 0700 above it); a config's is left to
// open_catalog.
[[nodiscard]] Result<Settings> load_settings(const Options& options);

// The same configuration again, from a snapshot. kCorrupt, kConfig.
[[nodiscard]] Result<Settings> read_snapshot(ByteView snapshot);

// Makes the directory of the config's catalog where it is missing. kIo names it.
[[nodiscard]] Status make_catalog_directory(const config::Config& config);

// Settings that differ from their defaults and that this version reads but does not act on, by
// their names in the configuration: an operator who set a limit must not believe that it holds.
std::vector<std::string> settings_without_effect(const config::Config& config);

// The part of a path below $XDG_CACHE_HOME/superlifter where the catalog of these real paths lies:
// "<NAME>-<16 hex digits>".
std::string serve_catalog_name(const std::vector<ServeDirectory>& directories);

}  // namespace superlifter::daemon
