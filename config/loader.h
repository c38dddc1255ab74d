// Loader: YAML to Config. The only unit that includes yaml-cpp.
//
// All errors are collected in one run and reported as "file:line:col: what was found: what was
// expected (did you mean 'nearest known key'?)". Nothing is bound, opened or forked before that.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"

namespace superlifter::config {

struct Loaded {
  Config config;                    // Meaningful only when errors is empty.
  std::vector<std::string> errors;  // One line each, in the order of the file.
};

enum class CheckPaths : bool { kNo, kYes };

// Parses a document. `file` is the name that errors carry. kYes also looks whether module paths
// exist and are directories.
Loaded load_text(std::string_view text, const std::string& file, CheckPaths check_paths);

// Reads and parses a file; one that cannot be read is an error like any other.
Loaded load_file(const std::string& file, CheckPaths check_paths);

}  // namespace superlifter::config
