// Access rules: allow and deny lists of address prefixes. Never host names: a name that does not
// resolve must not decide anything. A deny match refuses, then an allow match admits; whatever
// matches neither is refused. A peer whose address is not known (a pipe) is admitted only by the
// list that admits everybody: allow 0.0.0.0/0 and ::/0, deny empty.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

namespace superlifter::session {

// An IPv6 address; IPv4 as ::ffff:a.b.c.d. Bytes in network order.
struct Address {
  std::array<uint8_t, 16> bytes{};
  bool is_v4() const;
  friend auto operator<=>(const Address&, const Address&) = default;
};

// "192.0.2.1" or "2001:db8::1" (RFC 5952 when printed). kConfig for anything else.
[[nodiscard]] Result<Address> parse_address(std::string_view text);
std::string to_text(const Address& address);

struct Prefix {
  Address address;           // Bits beyond the length are zero.
  unsigned length_bits = 0;  // In terms of the 128-bit form: an IPv4 /8 is 104.
  bool contains(const Address& other) const;
};

// "10.0.0.0/8", "2001:db8::/32", or an address alone. kConfig when bits beyond the length are set:
// a rule that says one thing and means another is refused.
[[nodiscard]] Result<Prefix> parse_prefix(std::string_view text);

struct AccessRules {
  std::vector<Prefix> allow;
  std::vector<Prefix> deny;

  // No address: the peer is a pipe.
  bool admits(const std::optional<Address>& peer) const;
};

}  // namespace superlifter::session
