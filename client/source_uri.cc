#include "client/source_uri.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <optional>
#include <utility>

#include "core/base/escape.h"
#include "core/base/limits.h"

namespace superlifter::client {
namespace {

constexpr size_t kMaxHostBytes = 253;  // RFC 1035, as text.
constexpr size_t kMaxUserBytes = 255;
constexpr size_t kMaxFingerprintBytes = 255;
constexpr size_t kMaxZoneBytes = 15;  // IFNAMSIZ less its NUL.

constexpr const char* kSourceForms =
    "expected host[:port]/module[/path], superlifter://host[:port]/module[/path] or "
    "ssh://[user@]host[:port]/module[/path]";
constexpr const char* kHostForms =
    "expected host[:port], superlifter://host[:port] or ssh://[user@]host[:port]";

bool is_control(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte < 0x20 || byte == 0x7F;
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_alphanumeric(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool has_control(std::string_view text) {
  for (const char c : text) {
    if (is_control(c)) return true;
  }
  return false;
}
std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

// Value of a hexadecimal digit; -1: not one.
int hex_value(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Undoes %XX. Nothing when a '%' is not followed by two hexadecimal digits.
std::optional<std::string> decode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    if (i + 2 >= text.size()) return std::nullopt;
    const int high = hex_value(text[i + 1]);
    const int low = hex_value(text[i + 2]);
    if (high < 0 || low < 0) return std::nullopt;
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return out;
}

// %XX for all but RFC 3986's unreserved characters and those in `also`.
std::string encode(std::string_view bytes, std::string_view also) {
  std::string out;
  for (const char c : bytes) {
    if (is_alphanumeric(c) || std::string_view("-._~").contains(c) || also.contains(c)) {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

// Takes the text apart from left to right. Each step returns nothing, or why the text is refused.
class Parser {
 public:
  using Refusal = std::optional<std::string>;

  explicit Parser(std::string_view text) : text_(text) {}

  Refusal parse_source() {
    if (Refusal refusal = split()) return refusal;
    if (Refusal refusal = parse_authority()) return refusal;
    return parse_path();
  }

  Refusal parse_host() {
    if (Refusal refusal = split()) return refusal;
    if (Refusal refusal = parse_authority()) return refusal;
    if (!rest_.empty() && rest_ != "/") return "names more than a host";
    return std::nullopt;
  }

  SourceUri take() { return std::move(uri_); }

 private:
  static constexpr const char* kBadPercent =
      "a '%' without two hexadecimal digits behind it (write %25 for the character itself)";

  // Scheme, authority, rest.
  Refusal split() {
    if (text_.empty()) return "is empty";
    if (text_.size() > kMaxSourceBytes) return "is longer than any source can be";
    if (has_control(text_)) return "holds a control character (in a path it is written as %XX)";
    std::string_view after = text_;
    const size_t colon = text_.find_first_of(":/");
    if (colon != std::string_view::npos && text_.substr(colon).starts_with("://")) {
      const std::string name = lower(text_.substr(0, colon));
      if (name == "ssh") {
        uri_.scheme = Scheme::kSsh;
      } else if (name != "superlifter") {
        return fmt::format("unknown scheme '{}'", escape(name));
      }
      has_scheme_ = true;
      after.remove_prefix(colon + 3);
    }
    const size_t slash = after.find('/');
    authority_ = after.substr(0, slash);
    if (slash != std::string_view::npos) rest_ = after.substr(slash);
    return std::nullopt;
  }

  Refusal parse_authority() {
    std::string_view host_and_port = authority_;
    const size_t at = authority_.find('@');
    if (at != std::string_view::npos) {
      if (uri_.scheme != Scheme::kSsh) return "a user needs the form ssh://user@host/module";
      host_and_port = authority_.substr(at + 1);
      if (host_and_port.contains('@')) return "more than one '@' (inside the user, write %40)";
      if (Refusal refusal = parse_user(authority_.substr(0, at))) return refusal;
    }
    std::string_view host = host_and_port;
    std::string_view after;
    if (host.starts_with('[')) {
      const size_t closing = host.find(']');
      if (closing == std::string_view::npos) return "a '[' without its ']'";
      after = host.substr(closing + 1);
      host = host.substr(1, closing - 1);
      if (!after.empty() && !after.starts_with(':')) return "something other than :port after ']'";
      if (Refusal refusal = parse_ipv6(host)) return refusal;
    } else {
      const size_t colon = host.find(':');
      if (colon != std::string_view::npos) {
        after = host.substr(colon);
        host = host.substr(0, colon);
      }
      if (after.starts_with("::") && !host.empty() && !after.substr(2).contains(':')) {
        return "host::module is rsync's form; here it is host/module";
      }
      if (after.size() > 1 && after.substr(1).contains(':')) {
        return "more than one ':' before the module (an IPv6 address is written in brackets, as in "
               "[2001:db8::1]:8730)";
      }
      if (Refusal refusal = parse_name(host)) return refusal;
    }
    return after.empty() ? std::nullopt : parse_port(after.substr(1));
  }

  // [user][;fingerprint=…]
  Refusal parse_user(std::string_view info) {
    if (info.empty()) return "an empty user before '@'";
    const size_t semicolon = info.find(';');
    const std::string_view raw = info.substr(0, semicolon);
    if (raw.contains(':')) {
      return "a password in the source (never put one on a command line; ssh asks, or uses keys)";
    }
    const std::optional<std::string> user = decode(raw);
    if (!user) return kBadPercent;
    if (user->size() > kMaxUserBytes) return "a user of more than 255 bytes";
    if (user->starts_with('-')) return "a user that begins with '-'";
    // What ssh refuses too (valid_ruser in ssh.c): a user can reach a shell through ProxyCommand.
    if (has_control(*user) || user->find_first_of("'`\"\\;&<>|(){}$ ") != std::string::npos) {
      return "a user with a blank, a control character or one that a shell would act on";
    }
    uri_.user = *user;
    return semicolon == std::string_view::npos ? std::nullopt
                                               : parse_parameters(info.substr(semicolon + 1));
  }

  Refusal parse_parameters(std::string_view parameters) {
    static constexpr std::string_view kKey = "fingerprint=";
    if (!lower(parameters.substr(0, kKey.size())).starts_with(kKey)) {
      return "an unknown parameter after ';' (only ;fingerprint= is known)";
    }
    const std::optional<std::string> value = decode(parameters.substr(kKey.size()));
    if (!value) return kBadPercent;
    if (value->empty() || value->size() > kMaxFingerprintBytes || value->starts_with('-')) {
      return "a fingerprint that is empty, too long or begins with '-'";
    }
    for (const char c : *value) {
      if (!is_alphanumeric(c) && !std::string_view("-._:+/=").contains(c)) {
        return "a fingerprint with a character that none has";
      }
    }
    uri_.fingerprint = *value;
    return std::nullopt;
  }

  Refusal parse_ipv6(std::string_view text) {
    // RFC 6874 writes the zone as %25eth0; people write %eth0.
    const size_t percent = text.find('%');
    const std::string address(text.substr(0, percent));
    std::string zone;
    if (percent != std::string_view::npos) {
      std::string_view raw = text.substr(percent + 1);
      if (raw.starts_with("25") && raw.size() > 2) raw.remove_prefix(2);
      zone = raw;
      if (zone.empty() || zone.size() > kMaxZoneBytes || zone.starts_with('-')) {
        return "an IPv6 zone that is no interface";
      }
      for (const char c : zone) {
        if (!is_alphanumeric(c) && !std::string_view("-._").contains(c)) {
          return "an IPv6 zone that is no interface";
        }
      }
    }
    in6_addr binary{};
    char canonical[INET6_ADDRSTRLEN] = {};
    if (inet_pton(AF_INET6, address.c_str(), &binary) != 1 ||
        inet_ntop(AF_INET6, &binary, canonical, sizeof(canonical)) == nullptr) {
      return "no IPv6 address in the brackets";
    }
    uri_.host = canonical;
    if (!zone.empty()) uri_.host += "%" + zone;
    return std::nullopt;
  }

  Refusal parse_name(std::string_view raw) {
    const std::optional<std::string> host = decode(raw);
    if (!host) return kBadPercent;
    if (host->empty()) return "no host";
    if (host->starts_with('-')) return "a host that begins with '-'";
    if (host->starts_with('.')) return "a host that begins with '.' (a local path is no source)";
    if (host->size() > kMaxHostBytes) return "a host of more than 253 bytes";
    for (const char c : *host) {
      if (is_control(c)) return "a host with a control character";
      if (static_cast<unsigned char>(c) >= 0x80) {
        return "a host that is not ASCII (write an international name in its xn-- form)";
      }
      if (!is_alphanumeric(c) && !std::string_view("-._").contains(c)) {
        return fmt::format("a host with '{}' in it", c);
      }
    }
    uri_.host = lower(*host);
    return std::nullopt;
  }

  Refusal parse_port(std::string_view digits) {
    if (digits.empty()) {
      // RFC 3986 allows an empty port; after a bare host it is ssh's host:/path.
      if (has_scheme_) return std::nullopt;
      return "no port after ':'";
    }
    unsigned port = 0;
    for (const char c : digits) {
      if (!is_digit(c) || digits.size() > 5) return "a port that is not a number from 1 to 65535";
      port = port * 10 + static_cast<unsigned>(c - '0');
    }
    if (port < 1 || port > 65535) return "a port that is not a number from 1 to 65535";
    uri_.port = static_cast<uint16_t>(port);
    // One form for one meaning. With ssh, no port means whatever ssh's configuration says.
    if (uri_.scheme == Scheme::kTcp && port == kDefaultPort) uri_.port = 0;
    return std::nullopt;
  }

  Refusal parse_path() {
    std::string_view rest = rest_;
    if (rest.starts_with('/')) rest.remove_prefix(1);
    if (rest.ends_with('/')) rest.remove_suffix(1);
    if (rest.empty()) {
      return rest_.size() > 1 ? "an empty name in the path" : "names no module";
    }
    if (has_scheme_ && rest.find_first_of("?#") != std::string_view::npos) {
      return "'?' or '#' (in a name they are written %3F and %23)";
    }
    std::string path;
    for (bool first = true, last = false; !last; first = false) {
      const size_t slash = rest.find('/');
      last = slash == std::string_view::npos;
      const std::optional<std::string> name = decode(rest.substr(0, slash));
      if (!last) rest.remove_prefix(slash + 1);
      if (!name) return kBadPercent;
      if (Refusal refusal = first ? parse_module(*name) : check_name(*name)) return refusal;
      if (first) continue;
      if (!path.empty()) path += '/';
      path += *name;
    }
    Result<RelPath> parsed = RelPath::parse(path);
    if (!parsed) return "a path of more than 4,095 bytes";
    uri_.path = std::move(*parsed);
    return std::nullopt;
  }

  Refusal parse_module(const std::string& name) {
    if (Refusal refusal = check_name(name)) return refusal;
    if (name.size() > kMaxModuleNameBytes) return "a module name of more than 128 bytes";
    if (has_control(name)) return "a module name with a control character";
    if (name.starts_with('~')) {
      if (uri_.scheme != Scheme::kSsh) return "'~' (a home directory) needs the form ssh://host/~";
      if (name != "~") return "'~' with a name behind it (only the account's own home is known)";
    }
    uri_.module = name;
    return std::nullopt;
  }

  static Refusal check_name(const std::string& name) {
    if (name.empty()) return "an empty name in the path";
    if (name == "." || name == "..") return "'.' or '..' in the path";
    if (name.contains('/')) return "an encoded '/' in a name";
    if (name.contains('\0')) return "an encoded NUL in a name";
    if (name.size() > kMaxNameBytes) return "a name of more than 255 bytes in the path";
    return std::nullopt;
  }

  std::string_view text_;
  std::string_view authority_;
  std::string_view rest_;  // From the slash after the authority on; empty without one.
  bool has_scheme_ = false;
  SourceUri uri_;
};

std::unexpected<Error> refuse(const char* what, std::string_view text, const std::string& why,
                              const char* expected) {
  // A text that is refused for its length is quoted by its beginning.
  const bool cut = text.size() > 256;
  return fail(Errc::kConfig, fmt::format("{} '{}{}': {}; {}", what, escape(text.substr(0, 256)),
                                         cut ? "…" : "", why, expected));
}

}  // namespace

Result<SourceUri> parse_source(std::string_view text) {
  Parser parser(text);
  if (Parser::Refusal refusal = parser.parse_source()) {
    return refuse("source", text, *refusal, kSourceForms);
  }
  return parser.take();
}

Result<SourceUri> parse_host(std::string_view text) {
  Parser parser(text);
  if (Parser::Refusal refusal = parser.parse_host()) {
    return refuse("host", text, *refusal, kHostForms);
  }
  return parser.take();
}

std::string SourceUri::endpoint() const {
  std::string out = host.contains(':') ? "[" + host + "]" : host;
  // Without a port, ssh's own configuration decides.
  if (scheme == Scheme::kTcp || port != 0) out += fmt::format(":{}", port_or_default());
  return out;
}

std::string SourceUri::text() const {
  std::string out = scheme == Scheme::kSsh ? "ssh://" : "superlifter://";
  if (!user.empty() || !fingerprint.empty()) {
    out += encode(user, "");
    if (!fingerprint.empty()) out += ";fingerprint=" + encode(fingerprint, "");
    out += '@';
  }
  if (host.contains(':')) {
    const size_t percent = host.find('%');
    out += "[" + host.substr(0, percent);
    if (percent != std::string::npos) out += "%25" + host.substr(percent + 1);
    out += "]";
  } else {
    out += host;
  }
  if (port != 0) out += fmt::format(":{}", port);
  // The characters that RFC 3986 allows in a segment.
  static constexpr std::string_view kSegment = "!$&'()*+,;=:@";
  if (!module.empty()) out += "/" + encode(module, kSegment);
  if (!path.is_root()) out += "/" + encode(path.text(), "!$&'()*+,;=:@/");
  return out;
}

std::string SourceUri::default_destination() const {
  return path.is_root() ? module : std::string(path.name());
}

}  // namespace superlifter::client
