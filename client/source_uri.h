// SourceUri: what SRC on the command line names.
//
//   host[:port]/module[/path]
//   superlifter://host[:port]/module[/path]
//   ssh://[user[;fingerprint=ALGORITHM-HEX]@]host[:port]/module[/path]
//
// The ssh form follows draft-ietf-secsh-scp-sftp-ssh-uri-04 (section 3: percent-decoding, user,
// port, fingerprint) and RFC 3986 for what that leaves open. Every rule here is there because the
// text ends as an argument of another program (ssh), as a name on the wire, or as a path beneath
// DEST: it is checked once, on the way in, and the struct holds decoded bytes only.
//
// '%' begins an encoded byte in all three forms. In the two forms with a scheme a bare '?' or '#'
// is refused, since a URI keeps them for a query and a fragment, which we do not have; the short
// form takes them as they stand, so that a name can be pasted from a listing.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/base/rel_path.h"
#include "core/base/result.h"

namespace superlifter::client {

constexpr uint16_t kDefaultPort = 8730;
constexpr uint16_t kDefaultSshPort = 22;

// No SRC that names something is longer: a path of limits.h, each byte as %XX, and the rest.
constexpr size_t kMaxSourceBytes = 16 << 10;

enum class Scheme { kTcp, kSsh };

struct SourceUri {
  Scheme scheme = Scheme::kTcp;
  std::string user;    // kSsh only. Empty: ssh's own choice. Never begins with '-'.
  std::string host;    // Lower case; IPv6 without brackets, with "%zone" if one was given.
  uint16_t port = 0;   // 0: the default of the scheme.
  std::string module;  // A valid name. "~" (kSsh only): the account's home directory. Empty after
                       // parse_host.
  RelPath path;        // Beneath the module; the root names the module itself.
  std::string fingerprint;  // kSsh only: "ssh-ed25519-aa-bb-…" as given; empty: not given.

  // The port to use.
  uint16_t port_or_default() const {
    if (port != 0) return port;
    return scheme == Scheme::kSsh ? kDefaultSshPort : kDefaultPort;
  }
  // "host:port" for messages, IPv6 in brackets.
  std::string endpoint() const;
  // The canonical form: with a scheme, without a default port, printable ASCII only. Two texts that
  // name the same source give the same canonical form, and parse_source(text()) gives this value
  // again.
  std::string text() const;
  // Where the source lands when DEST is not given: the last name of the path, or the module.
  std::string default_destination() const;

  friend bool operator==(const SourceUri&, const SourceUri&) = default;
};

// Parses SRC. kConfig with a message that quotes `text`, escaped, and says what was expected.
[[nodiscard]] Result<SourceUri> parse_source(std::string_view text);

// Parses HOST of `superlifter modules`: the same forms up to the host and port, with at most one
// slash behind. module and path are empty. kConfig as above.
[[nodiscard]] Result<SourceUri> parse_host(std::string_view text);

}  // namespace superlifter::client
