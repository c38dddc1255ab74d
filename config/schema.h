// Schema: the table of every key of the configuration: its dotted path, kind, default, bounds and
// one line of help. The loader, the defaults of --serve and reference.md all come from it, so a key
// that is not here does not exist anywhere.
//
// A path is written as the YAML nests, "*" standing for a name that the administrator chooses:
// "limits.queue", "modules.*.path".
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "config/config.h"

namespace superlifter::config {

enum class Kind : uint8_t {
  kSection,    // A map of the keys below it.
  kModules,    // A map of names that the administrator chooses to sections.
  kText,       // One line.
  kLines,      // Text with line breaks.
  kUser,       // Name of an account.
  kPath,       // Absolute path of anything, there or not.
  kDirectory,  // Absolute path of a directory that must exist.
  kLogFile,    // "stderr" or an absolute path.
  kBoolean,
  kChoice,     // One of `words`.
  kCount,      // A whole number.
  kDuration,   // 500ms, 10s, 10m, 4h, 7d; milliseconds in the table and the field.
  kSize,       // 512B, 1KiB, 10MB; bytes.
  kRate,       // A size and "/s"; bytes per second.
  kShare,      // "1.5%"; a fraction of 1 in the field, hundredths of a percent in the table.
  kAddress,    // 127.0.0.1:9730: loopback by custom.
  kAddresses,  // 127.0.0.1:8730, [::]:8730.
  kPrefixes,   // 10.0.0.0/8, 2001:db8::/32.
  kGlobs,      // Patterns of core/base/glob.h.
};

// Where a key's value goes. Borrows the Config or Module it was asked of.
using Field = std::variant<std::monostate, bool*, uint32_t*, uint64_t*, double*, std::string*,
                           std::optional<ListenAddress>*, std::vector<ListenAddress>*,
                           std::vector<session::Prefix>*, std::vector<Glob>*, LogLevel*, LogFormat*,
                           EngineChoice*>;

enum class Presence : bool { kOptional, kRequired };

struct Key {
  std::string_view path;
  Kind kind = Kind::kText;
  std::string_view help;
  // As the YAML would say it; of a list, the items with a space between them. "": empty, or absent.
  std::string_view fallback = {};
  // Of the number; of a text, its bytes; of a list, its items. In the unit that Kind names.
  uint64_t least = 0;
  uint64_t most = 0;
  // kChoice: the choices with '|' between them, in the order of the enum. Of a number: the word for
  // 0.
  std::string_view words = {};
  Presence presence = Presence::kOptional;
  // Keys of a module look at the second argument, all others at the first. Null for kSection,
  // kModules.
  Field (*field)(Config&, Module&) = nullptr;
};

// Every key, in the order of superlifter.yaml; a section stands before its keys.
std::span<const Key> schema();

// The key of that path, or null.
const Key* find_key(std::string_view path);

// Whether its value is a YAML list.
bool is_list(Kind kind);

// Config with every default of the table, and no modules.
Config default_config();
// Module with every default of the table, and neither name nor path.
Module default_module();

// The text of reference.md.
std::string reference_markdown();

}  // namespace superlifter::config
