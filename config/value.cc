#include "config/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

#include "config/suggest.h"
#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/base/limits.h"

namespace superlifter::config {
namespace {

struct Unit {
  std::string_view name;
  uint64_t factor;
};
// Largest first, so that a number is printed in the largest unit that divides it.
constexpr std::array<Unit, 5> kDurationUnits = {
    {{"d", 86'400'000}, {"h", 3'600'000}, {"m", 60'000}, {"s", 1000}, {"ms", 1}}};
constexpr std::array<Unit, 5> kSizeUnits = {
    {{"TiB", kGiB << 10}, {"GiB", kGiB}, {"MiB", kMiB}, {"KiB", kKiB}, {"B", 1}}};
constexpr std::array<Unit, 5> kDecimalSizeUnits = {{{"TB", 1'000'000'000'000},
                                                    {"GB", 1'000'000'000},
                                                    {"MB", 1'000'000},
                                                    {"KB", 1000},
                                                    {"kB", 1000}}};
constexpr size_t kMaxUserBytes = 32;  // useradd(8).
// A share is a percentage with at most two decimals; the table counts it in these.
constexpr uint64_t kShareSteps = 10'000;

template <class T>
T& as(const Field& field) {
  T* const* pointer = std::get_if<T*>(&field);
  CHECK(pointer != nullptr && *pointer != nullptr);
  return **pointer;
}

std::unexpected<Error> refuse(const Key& key) {
  return fail(Errc::kConfig, "expected " + expectation(key));
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// The decimal number in front of `text`, which loses it. Nothing when there is none, when it has a
// leading zero (octal to some readers of YAML) or does not fit.
std::optional<uint64_t> take_number(std::string_view& text) {
  const auto end = std::find_if_not(text.begin(), text.end(), is_digit);
  const auto length = static_cast<size_t>(end - text.begin());
  if (length == 0 || (length > 1 && text.front() == '0')) return std::nullopt;
  uint64_t number = 0;
  const std::string_view digits = text.substr(0, length);
  const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(length);
  return number;
}

// A number with one of `units`, in the smallest unit.
template <size_t kCount>
std::optional<uint64_t> parse_measure(std::string_view text,
                                      const std::array<Unit, kCount>& units) {
  const std::optional<uint64_t> number = take_number(text);
  if (!number) return std::nullopt;
  const auto unit =
      std::find_if(units.begin(), units.end(), [&](const Unit& u) { return u.name == text; });
  if (unit == units.end()) return std::nullopt;
  if (*number > std::numeric_limits<uint64_t>::max() / unit->factor) return std::nullopt;
  return *number * unit->factor;
}

std::optional<uint64_t> parse_size(std::string_view text) {
  const std::optional<uint64_t> binary = parse_measure(text, kSizeUnits);
  return binary ? binary : parse_measure(text, kDecimalSizeUnits);
}

std::optional<uint64_t> parse_count(std::string_view text) {
  const std::optional<uint64_t> number = take_number(text);
  return text.empty() ? number : std::nullopt;
}

// "1.5%" as 150.
std::optional<uint64_t> parse_share(std::string_view text) {
  const std::optional<uint64_t> whole = take_number(text);
  if (!whole || *whole > 100) return std::nullopt;
  uint64_t steps = *whole * 100;
  if (text.starts_with('.')) {
    text.remove_prefix(1);
    for (uint64_t step = 10; step > 0 && !text.empty() && is_digit(text.front()); step /= 10) {
      steps += step * static_cast<uint64_t>(text.front() - '0');
      text.remove_prefix(1);
      if (text == "%") return steps;
    }
    return std::nullopt;
  }
  return text == "%" ? std::optional(steps) : std::nullopt;
}

std::optional<uint64_t> parse_number(Kind kind, std::string_view text) {
  switch (kind) {
    case Kind::kCount:
      return parse_count(text);
    case Kind::kDuration:
      return parse_measure(text, kDurationUnits);
    case Kind::kSize:
      return parse_size(text);
    case Kind::kRate:
      if (!text.ends_with("/s")) return std::nullopt;
      return parse_size(text.substr(0, text.size() - 2));
    case Kind::kShare:
      return parse_share(text);
    default:
      return std::nullopt;
  }
}

template <size_t kCount>
std::string print_measure(uint64_t number, const std::array<Unit, kCount>& units) {
  const auto unit = std::find_if(units.begin(), units.end() - 1,
                                 [&](const Unit& u) { return number % u.factor == 0; });
  return number == 0 ? fmt::format("0{}", units.back().name)
                     : fmt::format("{}{}", number / unit->factor, unit->name);
}

std::string print_number(Kind kind, uint64_t number) {
  switch (kind) {
    case Kind::kDuration:
      return print_measure(number, kDurationUnits);
    case Kind::kSize:
      return print_measure(number, kSizeUnits);
    case Kind::kRate:
      return print_measure(number, kSizeUnits) + "/s";
    case Kind::kShare:
      return fmt::format("{}%", number / 100);
    default:
      return std::to_string(number);
  }
}

Status set_number(const Key& key, std::string_view text, const Field& field) {
  std::optional<uint64_t> number = parse_number(key.kind, text);
  if (number && (*number < key.least || *number > key.most)) number.reset();
  if (!number && !key.words.empty() && text == key.words) number = 0;
  if (!number) return refuse(key);
  if (key.kind == Kind::kCount) {
    CHECK(*number <= std::numeric_limits<uint32_t>::max());
    as<uint32_t>(field) = static_cast<uint32_t>(*number);
  } else if (key.kind == Kind::kShare) {
    as<double>(field) = static_cast<double>(*number) / static_cast<double>(kShareSteps);
  } else {
    as<uint64_t>(field) = *number;
  }
  return {};
}

Status set_choice(const Key& key, std::string_view text, const Field& field) {
  const std::vector<std::string_view> choices = split_words(key.words);
  const auto found = std::find(choices.begin(), choices.end(), text);
  if (found == choices.end()) return refuse(key);
  const auto index = static_cast<int>(found - choices.begin());
  if (std::holds_alternative<LogLevel*>(field)) {
    as<LogLevel>(field) = static_cast<LogLevel>(index);
  } else if (std::holds_alternative<LogFormat*>(field)) {
    as<LogFormat>(field) = static_cast<LogFormat>(index);
  } else {
    as<EngineChoice>(field) = static_cast<EngineChoice>(index);
  }
  return {};
}

bool is_text(std::string_view text, const Key& key) {
  const bool lines = key.kind == Kind::kLines;
  return text.size() <= key.most && std::none_of(text.begin(), text.end(), [&](char c) {
           const auto byte = static_cast<unsigned char>(c);
           if (lines && (c == '\n' || c == '\t')) return false;
           return byte < 0x20 || byte == 0x7F;
         });
}

bool is_user(std::string_view text) {
  const auto is_letter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  };
  return !text.empty() && text.size() <= kMaxUserBytes && is_letter(text.front()) &&
         std::all_of(text.begin(), text.end(),
                     [&](char c) { return is_letter(c) || is_digit(c) || c == '-' || c == '.'; });
}

bool is_absolute_path(std::string_view text) {
  return text.starts_with('/') && text.size() <= kMaxPathBytes &&
         text.find('\0') == std::string_view::npos;
}

Status set_string(const Key& key, std::string_view text, const Field& field) {
  bool good = false;
  switch (key.kind) {
    case Kind::kText:
    case Kind::kLines:
      good = is_text(text, key);
      break;
    case Kind::kUser:
      good = is_user(text);
      break;
    case Kind::kLogFile:
      good = text == "stderr" || is_absolute_path(text);
      break;
    default:
      good = is_absolute_path(text);
  }
  if (!good) return refuse(key);
  as<std::string>(field) = text;
  return {};
}

Status set_address(const Key& key, std::string_view text, const Field& field) {
  const Result<ListenAddress> address = parse_listen_address(text);
  if (!address) return std::unexpected(address.error());
  if (key.kind == Kind::kAddresses) {
    as<std::vector<ListenAddress>>(field).push_back(*address);
  } else {
    as<std::optional<ListenAddress>>(field) = *address;
  }
  return {};
}

Status add_prefix(const Key& key, std::string_view text, const Field& field) {
  const Result<session::Prefix> prefix = session::parse_prefix(text);
  if (!prefix) {
    const std::string& why = prefix.error().message;
    if (why.starts_with("expected")) return std::unexpected(prefix.error());
    return fail(Errc::kConfig, fmt::format("expected {}; {}", expectation(key), why));
  }
  as<std::vector<session::Prefix>>(field).push_back(*prefix);
  return {};
}

Status add_glob(const Key& key, std::string_view text, const Field& field) {
  Result<Glob> glob = text.size() <= kMaxPathBytes ? Glob::parse(text)
                                                   : fail(Errc::kConfig, "the pattern is too long");
  if (!glob) {
    return fail(Errc::kConfig,
                fmt::format("expected {}; {}", expectation(key), glob.error().message));
  }
  as<std::vector<Glob>>(field).push_back(std::move(*glob));
  return {};
}

std::string list_choices(std::string_view words) {
  const std::vector<std::string_view> choices = split_words(words);
  std::string out;
  for (size_t i = 0; i < choices.size(); ++i) {
    if (i > 0) out += i + 1 == choices.size() ? " or " : ", ";
    out += choices[i];
  }
  return out;
}

std::string describe_number(const Key& key, std::string_view what, std::string_view example) {
  std::string out = fmt::format("{} from {} to {}", what, print_number(key.kind, key.least),
                                print_number(key.kind, key.most));
  if (!example.empty()) out += fmt::format(", such as {}", example);
  if (!key.words.empty()) out += fmt::format(", or {}", key.words);
  return out;
}

}  // namespace

Status set_value(const Key& key, std::string_view text, const Field& field) {
  switch (key.kind) {
    case Kind::kSection:
    case Kind::kModules:
      break;
    case Kind::kText:
    case Kind::kLines:
    case Kind::kUser:
    case Kind::kPath:
    case Kind::kDirectory:
    case Kind::kLogFile:
      return set_string(key, text, field);
    case Kind::kBoolean:
      if (text != "true" && text != "false") return refuse(key);
      as<bool>(field) = text == "true";
      return {};
    case Kind::kChoice:
      return set_choice(key, text, field);
    case Kind::kCount:
    case Kind::kDuration:
    case Kind::kSize:
    case Kind::kRate:
    case Kind::kShare:
      return set_number(key, text, field);
    case Kind::kAddress:
    case Kind::kAddresses:
      return set_address(key, text, field);
    case Kind::kPrefixes:
      return add_prefix(key, text, field);
    case Kind::kGlobs:
      return add_glob(key, text, field);
  }
  CHECK(false);
  return {};  // Not reached; the sanitizers' builds want it said.
}

std::string expectation(const Key& key) {
  switch (key.kind) {
    case Kind::kSection:
    case Kind::kModules:
      return "a map";
    case Kind::kText:
      return fmt::format("one line of text, at most {} bytes", key.most);
    case Kind::kLines:
      return fmt::format("text of at most {} bytes", key.most);
    case Kind::kUser:
      return "the name of a user";
    case Kind::kPath:
      return "an absolute path";
    case Kind::kDirectory:
      return "the absolute path of a directory";
    case Kind::kLogFile:
      return "stderr or the absolute path of a file";
    case Kind::kBoolean:
      return "true or false";
    case Kind::kChoice:
      return list_choices(key.words);
    case Kind::kCount:
      return describe_number(key, "a whole number", "");
    case Kind::kDuration:
      return describe_number(key, "a duration", "500ms, 10s, 10m or 4h");
    case Kind::kSize:
      return describe_number(key, "a size", "1KiB or 10MB");
    case Kind::kRate:
      return describe_number(key, "a rate", "1KiB/s or 10MB/s");
    case Kind::kShare:
      return describe_number(key, "a percentage", "1.5%");
    case Kind::kAddress:
      return "an address and a port such as 127.0.0.1:9730";
    case Kind::kAddresses:
      return "an address and a port such as 127.0.0.1:8730 or [::]:8730";
    case Kind::kPrefixes:
      return "an address prefix such as 192.0.2.0/24 or 2001:db8::/32";
    case Kind::kGlobs:
      return "a pattern such as *.tmp or /private/";
  }
  CHECK(false);
  return {};  // Not reached; the sanitizers' builds want it said.
}

std::string suggest_value(const Key& key, std::string_view text) {
  if (key.kind == Kind::kBoolean) {
    for (const std::string_view yes : {"yes", "Yes", "on", "On", "True", "TRUE", "1", "y"}) {
      if (text == yes) return "true";
    }
    for (const std::string_view no : {"no", "No", "off", "Off", "False", "FALSE", "0", "n"}) {
      if (text == no) return "false";
    }
    return nearest(text, {"true", "false"});
  }
  // The commonest slips: a unit or a port left out. Kept only if the whole is then right.
  std::vector<std::string> completed;
  const std::string typed(text.substr(0, kMaxNameBytes));
  const bool bare = !typed.empty() && is_digit(typed.back());
  if (key.kind == Kind::kDuration && bare) completed = {typed + "s"};
  if (key.kind == Kind::kSize) completed = {typed + "B", typed + "iB"};
  if (key.kind == Kind::kRate) completed = {typed + "/s", typed + "B/s", typed + "iB/s"};
  if (key.kind == Kind::kShare) completed = {typed + "%"};
  if (key.kind == Kind::kAddress || key.kind == Kind::kAddresses) {
    const bool ops = key.kind == Kind::kAddress;
    const std::string port = ":" + std::to_string(ops ? kDefaultOpsPort : kDefaultPort);
    completed = {typed + port, "[" + typed + "]" + port};
  }
  for (const std::string& candidate : completed) {
    Config config;
    Module module;
    config.listen.clear();
    if (key.field != nullptr && set_value(key, candidate, key.field(config, module))) {
      return candidate;
    }
  }
  return key.words.empty() ? "" : nearest(text, split_words(key.words));
}

std::vector<std::string_view> split_words(std::string_view words) {
  std::vector<std::string_view> parts;
  while (!words.empty()) {
    const size_t bar = words.find('|');
    parts.push_back(words.substr(0, bar));
    words.remove_prefix(bar == std::string_view::npos ? words.size() : bar + 1);
  }
  return parts;
}

}  // namespace superlifter::config
