#include "client/filter.h"

#include "core/base/escape.h"

namespace superlifter::client {

Status Filter::add(Action action, std::string_view pattern) {
  if (rules_.size() >= kMaxFilterRules) {
    return fail(Errc::kLimit, "more than 100,000 --include and --exclude patterns");
  }
  if (pattern.starts_with("+ ") || pattern.starts_with("- ") || pattern == "!") {
    return fail(Errc::kConfig,
                "pattern '" + escape(pattern) +
                    "': rsync's rule prefixes are not patterns; use --include and --exclude in the "
                    "wanted order (for a name that begins so, write [+] or [-])");
  }
  Rule rule;
  rule.action = action;
  // "dir/***" is "dir/" for the directory itself and "dir/**" for what is in it.
  static constexpr std::string_view kAllAndItself = "/***";
  if (pattern.ends_with(kAllAndItself) && pattern.size() > kAllAndItself.size()) {
    const std::string directory(pattern.substr(0, pattern.size() - 3));
    for (const std::string& text : {directory, directory + "**"}) {
      Result<Glob> glob = Glob::parse(text);
      if (!glob) return std::unexpected(glob.error());
      rule.globs.push_back(std::move(*glob));
    }
  } else {
    Result<Glob> glob = Glob::parse(pattern);
    if (!glob) return std::unexpected(glob.error());
    rule.globs.push_back(std::move(*glob));
  }
  rules_.push_back(std::move(rule));
  return {};
}

bool Filter::excludes(std::string_view path, IsDirectory is_directory) const {
  if (rules_.empty()) return false;
  for (size_t slash = path.find('/'); slash != std::string_view::npos;
       slash = path.find('/', slash + 1)) {
    if (excludes_entry(path.substr(0, slash), IsDirectory::kYes)) return true;
  }
  return excludes_entry(path, is_directory);
}

bool Filter::excludes_entry(std::string_view path, IsDirectory is_directory) const {
  if (path.empty()) return false;
  for (const Rule& rule : rules_) {
    for (const Glob& glob : rule.globs) {
      if (glob.matches(path, is_directory)) return rule.action == Action::kExclude;
    }
  }
  return false;
}

}  // namespace superlifter::client
