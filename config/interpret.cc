#include "config/interpret.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "config/schema.h"
#include "config/suggest.h"
#include "config/value.h"
#include "core/base/escape.h"
#include "core/base/limits.h"

namespace superlifter::config {
namespace {

// Fills a Config from a Document.
class Walk {
 public:
  Walk(const Document& document, CheckPaths check_paths, Mistakes& mistakes)
      : document_(document), check_paths_(check_paths), mistakes_(mistakes) {}

  Config run();

 private:
  // A map that is still to be read. `table` and `shown` go in front of its keys, in the schema and
  // in messages: "modules.*." and "modules.debian.". `shown` is escaped already.
  struct Scope {
    size_t map = 0;
    Position at;
    std::string table = {};
    std::string shown = {};
    size_t module = 0;  // Of Config::modules, where `table` is a module's.
  };
  struct Pair {
    const Value& name;
    size_t value;
  };

  const Value& value(size_t index) const { return document_.values[index]; }
  Field field(const Key& key, const Scope& scope) {
    Module& module = scope.table == "modules.*." ? config_.modules[scope.module] : no_module_;
    return key.field(config_, module);
  }
  void read_scope(const Scope& scope);
  void read_pair(const Scope& scope, const Pair& pair);
  void read_module(const Scope& scope, const Pair& pair);
  void read_section(const Key& key, const Scope& scope, const Pair& pair);
  void read_list(const Key& key, const Scope& scope, size_t list);
  void read_item(const Key& key, const std::string& name, const Field& items, const Value& item);
  void read_scalar(const Key& key, const Scope& scope, size_t index);
  void check_directory(const std::string& name, const Value& path);
  void check_listen_is_new(const std::string& name, const Value& address);
  void check_ops_listen();
  void require_keys(const Scope& scope);
  void report_unknown(const Scope& scope, const Value& name);
  void report_wrong(const Key& key, const std::string& name, const Value& value,
                    const std::string& expected);

  const Document& document_;
  CheckPaths check_paths_;
  Mistakes& mistakes_;
  Config config_ = default_config();
  Module no_module_;
  std::vector<Scope> scopes_;  // run() goes through them.
  // Keys of the scope that is being read, and their lines.
  std::unordered_map<std::string_view, int> seen_;
  Position ops_at_;
};

Config Walk::run() {
  if (document_.values.empty() || value(0).type == Value::Type::kNothing) {
    if (document_.complete) {
      mistakes_.add({}, "the document is empty: expected at least the key 'modules'");
    }
    return std::move(config_);
  }
  const Value& root = value(0);
  if (root.type != Value::Type::kMap) {
    mistakes_.add(root.at,
                  fmt::format("the document is {}: expected a map of keys", describe(root)));
    return std::move(config_);
  }
  scopes_.push_back({.map = 0, .at = root.at});
  // read_scope appends: an index, and a copy, survive that.
  for (size_t next = 0; next < scopes_.size() && !mistakes_.full(); ++next) {
    const Scope scope = scopes_[next];
    read_scope(scope);
  }
  check_ops_listen();
  return std::move(config_);
}

void Walk::read_scope(const Scope& scope) {
  seen_.clear();
  if (value(scope.map).type == Value::Type::kMap) {
    const size_t end = value(scope.map).end;
    for (size_t i = scope.map + 1; i < end && !mistakes_.full();) {
      const Pair pair{.name = value(i), .value = value(i).end};
      if (pair.value >= end) break;  // A key whose value a syntax error cut off.
      i = value(pair.value).end;
      read_pair(scope, pair);
    }
  }
  if (document_.complete) require_keys(scope);
}

void Walk::read_pair(const Scope& scope, const Pair& pair) {
  if (pair.name.type != Value::Type::kScalar) {
    const std::string what =
        pair.name.type == Value::Type::kNothing ? "nothing" : describe(pair.name);
    return mistakes_.add(pair.name.at, what + " as a key: expected the name of a key");
  }
  const auto [first, is_new] = seen_.emplace(pair.name.text, pair.name.at.line);
  if (!is_new) {
    return mistakes_.add(pair.name.at,
                         fmt::format("duplicate key '{}{}': expected it once; it is in line {} too",
                                     scope.shown, clip(pair.name.text), first->second));
  }
  if (scope.table == "modules.") return read_module(scope, pair);
  // A '.' in a name could reach another section's key, a '*' the keys of modules.
  const bool plain = pair.name.text.find_first_of(".*") == std::string::npos;
  const Key* key = plain ? find_key(scope.table + pair.name.text) : nullptr;
  if (key == nullptr) return report_unknown(scope, pair.name);
  if (key->field == nullptr) return read_section(*key, scope, pair);
  if (is_list(key->kind)) return read_list(*key, scope, pair.value);
  read_scalar(*key, scope, pair.value);
}

void Walk::read_module(const Scope& scope, const Pair& pair) {
  if (config_.modules.size() == kMaxModules) {
    if (seen_.size() == kMaxModules + 1) {
      mistakes_.add(pair.name.at, fmt::format("module {} is one too many: expected at most {}",
                                              show(pair.name.text), kMaxModules));
    }
    return;
  }
  if (!is_module_name(pair.name.text)) {
    mistakes_.add(
        pair.name.at,
        fmt::format("module name {}: expected letters, digits, '.', '_' and '-', the first a "
                    "letter or digit, at most {} bytes",
                    show(pair.name.text), kMaxModuleNameBytes));
  }
  const Value& settings = value(pair.value);
  const std::string name = scope.shown + clip(pair.name.text);
  if (settings.type == Value::Type::kScalar || settings.type == Value::Type::kList) {
    return mistakes_.add(settings.at,
                         fmt::format("{} is {}: expected a map with at least the key 'path'", name,
                                     describe(settings)));
  }
  Module module = default_module();
  module.name = pair.name.text;
  config_.modules.push_back(std::move(module));
  scopes_.push_back({.map = pair.value,
                     .at = pair.name.at,
                     .table = "modules.*.",
                     .shown = name + ".",
                     .module = config_.modules.size() - 1});
}

void Walk::read_section(const Key& key, const Scope& scope, const Pair& pair) {
  const Value& map = value(pair.value);
  const std::string path(key.path);
  const bool wrong = map.type == Value::Type::kScalar || map.type == Value::Type::kList;
  if (key.kind == Kind::kModules && (wrong || map.end == pair.value + 1) &&
      (wrong || document_.complete)) {
    return mistakes_.add(map.at, fmt::format("{} is {}: expected a map of at least one module",
                                             path, wrong ? describe(map) : "empty"));
  }
  if (wrong) {
    return mistakes_.add(map.at,
                         fmt::format("{} is {}: expected a map of keys", path, describe(map)));
  }
  scopes_.push_back({.map = pair.value,
                     .at = pair.name.at,
                     .table = path + ".",
                     .shown = scope.shown + path + "."});
}

void Walk::read_list(const Key& key, const Scope& scope, size_t list) {
  const std::string name = scope.shown + std::string(key.path.substr(scope.table.size()));
  const Value& whole = value(list);
  if (whole.type != Value::Type::kList) {
    return mistakes_.add(whole.at, fmt::format("{} is {}: expected a list, each item {}", name,
                                               describe(whole), expectation(key)));
  }
  const Field items = field(key, scope);
  std::visit(
      [](auto target) {
        if constexpr (requires { target->clear(); }) target->clear();
      },
      items);
  size_t count = 0;
  for (size_t i = list + 1; i < whole.end && !mistakes_.full(); i = value(i).end) {
    const Value& item = value(i);
    if (++count > key.most) {
      return mistakes_.add(item.at,
                           fmt::format("{} has more than {} items: expected less", name, key.most));
    }
    read_item(key, name, items, item);
  }
}

void Walk::read_item(const Key& key, const std::string& name, const Field& items,
                     const Value& item) {
  if (item.type == Value::Type::kNothing) {
    if (!document_.complete) return;  // What a syntax error left of a list.
    return mistakes_.add(item.at,
                         fmt::format("{} has an empty item: expected {}", name, expectation(key)));
  }
  if (item.type != Value::Type::kScalar) {
    return report_wrong(key, name, item, "expected " + expectation(key));
  }
  const Status status = set_value(key, item.text, items);
  if (!status) return report_wrong(key, name, item, status.error().message);
  if (key.path == "listen") check_listen_is_new(name, item);
}

void Walk::read_scalar(const Key& key, const Scope& scope, size_t index) {
  const std::string name = scope.shown + std::string(key.path.substr(scope.table.size()));
  const Value& scalar = value(index);
  if (scalar.type != Value::Type::kScalar) {
    return report_wrong(key, name, scalar, "expected " + expectation(key));
  }
  const Status status = set_value(key, scalar.text, field(key, scope));
  if (!status) return report_wrong(key, name, scalar, status.error().message);
  if (key.path == "ops.listen") ops_at_ = scalar.at;
  if (key.kind == Kind::kDirectory) check_directory(name, scalar);
}

void Walk::check_directory(const std::string& name, const Value& path) {
  if (check_paths_ == CheckPaths::kNo) return;
  struct stat status{};
  // Whole: a path that is cut is of no use in a search for it.
  const std::string shown = fmt::format("{} is '{}'", name, escape(path.text));
  std::string found;
  if (stat(path.text.c_str(), &status) != 0) {
    const int number = errno;
    found = number == ENOENT
                ? shown + ", which is not there"
                : fmt::format("{}, which cannot be looked at ({})", shown, std::strerror(number));
  } else if (!S_ISDIR(status.st_mode)) {
    found = shown + ", which is not a directory";
  }
  if (!found.empty()) mistakes_.add(path.at, found + ": expected a directory");
}

void Walk::check_listen_is_new(const std::string& name, const Value& address) {
  const auto last = config_.listen.end() - 1;
  if (std::find(config_.listen.begin(), last, *last) == last) return;
  mistakes_.add(address.at, fmt::format("{} has {} twice: expected each address once", name,
                                        show(address.text)));
}

void Walk::check_ops_listen() {
  if (!config_.ops_listen || config_.ops_listen->port == 0) return;
  const auto& listen = config_.listen;
  if (std::find(listen.begin(), listen.end(), *config_.ops_listen) == listen.end()) return;
  mistakes_.add(ops_at_,
                fmt::format("ops.listen is {}, which is in listen too: expected another port",
                            show(to_text(*config_.ops_listen))));
}

void Walk::require_keys(const Scope& scope) {
  for (const Key& key : schema()) {
    if (key.presence != Presence::kRequired || !key.path.starts_with(scope.table)) continue;
    const std::string_view name = key.path.substr(scope.table.size());
    if (name.find('.') != std::string_view::npos || seen_.contains(name)) continue;
    const std::string owner =
        scope.shown.empty() ? "the document" : scope.shown.substr(0, scope.shown.size() - 1);
    const std::string expected =
        key.kind == Kind::kModules ? "a map of at least one module" : expectation(key);
    mistakes_.add(scope.at, fmt::format("{} has no key '{}': expected {}", owner, name, expected));
  }
}

void Walk::report_unknown(const Scope& scope, const Value& name) {
  std::vector<std::string_view> known;  // Names of this scope.
  std::string elsewhere;                // Path of a key of this very name in another one.
  std::string listed;
  for (const Key& key : schema()) {
    const size_t dot = key.path.rfind('.');
    const std::string_view last =
        dot == std::string_view::npos ? key.path : key.path.substr(dot + 1);
    if (key.path.starts_with(scope.table) && key.path.size() == scope.table.size() + last.size()) {
      known.push_back(last);
      listed += (listed.empty() ? "" : ", ") + std::string(last);
    } else if (last == name.text && elsewhere.empty()) {
      elsewhere = key.path;
    }
  }
  std::string meant = nearest(name.text, known);
  if (meant.empty()) meant = elsewhere;
  std::string expected = known.empty() ? "no key here yet" : "one of " + listed;
  if (!meant.empty()) expected = fmt::format("a known key (did you mean '{}'?)", meant);
  mistakes_.add(name.at, fmt::format("unknown key '{}{}': expected {}", scope.shown,
                                     clip(name.text), expected));
}

void Walk::report_wrong(const Key& key, const std::string& name, const Value& value,
                        const std::string& expected) {
  const char* const verb = is_list(key.kind) ? "has" : "is";
  std::string text = fmt::format("{} {} {}: {}", name, verb, describe(value), expected);
  const std::string meant =
      value.type == Value::Type::kScalar ? suggest_value(key, value.text) : std::string();
  if (!meant.empty()) text += fmt::format(" (did you mean '{}'?)", escape(meant));
  mistakes_.add(value.at, std::move(text));
}

}  // namespace

Config interpret(const Document& document, CheckPaths check_paths, Mistakes& mistakes) {
  return Walk(document, check_paths, mistakes).run();
}

}  // namespace superlifter::config
