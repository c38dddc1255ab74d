// Filter: the --include and --exclude rules of a pull, with rsync's meaning.
//
// The first rule that matches an entry decides; an entry that no rule matches is included. A
// directory that is excluded takes everything beneath it along: it is neither pulled, nor looked
// at, nor deleted by --delete, and a later --include of something inside has no effect. Patterns
// are core/base/glob.h, matched against paths relative to DEST; "dir/***" stands for the directory
// and all beneath it.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "core/base/glob.h"
#include "core/base/rel_path.h"
#include "core/base/result.h"

namespace superlifter::client {

// Patterns on one command line; what an argument list can hold is far less.
constexpr size_t kMaxFilterRules = 100'000;

class Filter {
 public:
  enum class Action { kInclude, kExclude };

  // Appends a rule. kConfig for a pattern that Glob refuses, or one that begins with rsync's rule
  // prefixes "+ " or "- " or is "!" (which rsync takes for rules and we would take for names);
  // kLimit.
  [[nodiscard]] Status add(Action action, std::string_view pattern);

  bool empty() const { return rules_.empty(); }

  // Whether `path` (relative to DEST) is left alone, because of its own name or of a directory
  // above it. The root itself never is. Cost: O(depth x rules x path).
  bool excludes(std::string_view path, IsDirectory is_directory) const;
  bool excludes(const RelPath& path, IsDirectory is_directory) const {
    return excludes(std::string_view(path.text()), is_directory);
  }

  // The same for a walker, which does not go into excluded directories.
  // REQUIRES: no directory above `path` is excluded.
  bool excludes_entry(std::string_view path, IsDirectory is_directory) const;

 private:
  struct Rule {
    Action action = Action::kExclude;
    std::vector<Glob> globs;  // Any of them; two for "dir/***", else one.
  };

  std::vector<Rule> rules_;  // In the order of the command line.
};

}  // namespace superlifter::client
