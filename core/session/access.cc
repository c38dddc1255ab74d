#include "core/session/access.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace superlifter::session {
namespace {

constexpr std::array<uint8_t, 12> kMappedPrefix = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
constexpr unsigned kMappedBits = 96;

}  // namespace

bool Address::is_v4() const {
  return std::equal(kMappedPrefix.begin(), kMappedPrefix.end(), bytes.begin());
}

Result<Address> parse_address(std::string_view text) {
  const std::string terminated(text);
  Address address;
  if (terminated.size() == text.size() && terminated.find('\0') == std::string::npos) {
    if (inet_pton(AF_INET6, terminated.c_str(), address.bytes.data()) == 1) return address;
    std::copy(kMappedPrefix.begin(), kMappedPrefix.end(), address.bytes.begin());
    if (inet_pton(AF_INET, terminated.c_str(), address.bytes.data() + kMappedPrefix.size()) == 1) {
      return address;
    }
  }
  return fail(Errc::kConfig, "expected an IPv4 or IPv6 address");
}

std::string to_text(const Address& address) {
  char text[INET6_ADDRSTRLEN] = {};
  if (address.is_v4()) {
    inet_ntop(AF_INET, address.bytes.data() + kMappedPrefix.size(), text, sizeof(text));
  } else {
    inet_ntop(AF_INET6, address.bytes.data(), text, sizeof(text));
  }
  return text;
}

bool Prefix::contains(const Address& other) const {
  const unsigned whole = length_bits / 8;
  const unsigned rest = length_bits % 8;
  if (std::memcmp(address.bytes.data(), other.bytes.data(), whole) != 0) return false;
  if (rest == 0) return true;
  const auto mask = static_cast<uint8_t>(0xFFU << (8 - rest));
  return (address.bytes[whole] & mask) == (other.bytes[whole] & mask);
}

Result<Prefix> parse_prefix(std::string_view text) {
  const size_t slash = text.find('/');
  const Result<Address> address = parse_address(text.substr(0, slash));
  if (!address) {
    return fail(Errc::kConfig, "expected an address prefix such as 192.0.2.0/24 or 2001:db8::/32");
  }
  const bool written_as_v4 = text.substr(0, slash).find(':') == std::string_view::npos;
  const unsigned most = written_as_v4 ? 32 : 128;
  unsigned length = most;
  if (slash != std::string_view::npos) {
    const std::string_view digits = text.substr(slash + 1);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), length);
    if (error != std::errc() || end != digits.data() + digits.size() || length > most) {
      return fail(Errc::kConfig, "expected a prefix length of 0 to " + std::to_string(most));
    }
  }
  Prefix prefix{.address = *address, .length_bits = length + (written_as_v4 ? kMappedBits : 0)};
  for (unsigned bit = prefix.length_bits; bit < 128; ++bit) {
    if ((prefix.address.bytes[bit / 8] & (0x80U >> (bit % 8))) != 0) {
      return fail(Errc::kConfig, "the address has bits set beyond its prefix length");
    }
  }
  return prefix;
}

bool AccessRules::admits(const std::optional<Address>& peer) const {
  if (!peer) {
    const auto admits_all = [&](bool v4) {
      return std::any_of(allow.begin(), allow.end(), [&](const Prefix& prefix) {
        return v4 ? prefix.length_bits == kMappedBits && prefix.address.is_v4()
                  : prefix.length_bits == 0;
      });
    };
    return deny.empty() && admits_all(true) && admits_all(false);
  }
  const auto matches = [&](const Prefix& prefix) {
    // "::/0" means every IPv6 address, not the mapped IPv4 ones.
    const bool same_family =
        peer->is_v4() == (prefix.address.is_v4() && prefix.length_bits >= kMappedBits);
    return same_family && prefix.contains(*peer);
  };
  if (std::any_of(deny.begin(), deny.end(), matches)) return false;
  return std::any_of(allow.begin(), allow.end(), matches);
}

}  // namespace superlifter::session
