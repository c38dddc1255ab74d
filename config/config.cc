#include "config/config.h"

#include <algorithm>
#include <charconv>

#include "core/base/check.h"
#include "core/base/limits.h"

namespace superlifter::config {
namespace {

constexpr const char* kExpectedAddress =
    "expected an address and a port such as 127.0.0.1:8730 or [::]:8730";

bool is_alphanumeric(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

}  // namespace

Result<ListenAddress> parse_listen_address(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return fail(Errc::kConfig, kExpectedAddress);
  std::string_view host = text.substr(0, colon);
  const std::string_view digits = text.substr(colon + 1);
  // Brackets decide the family: without them "::1:8730" could be read in two ways.
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  if (bracketed != (host.find(':') != std::string_view::npos)) {
    return fail(Errc::kConfig, kExpectedAddress);
  }
  const Result<session::Address> address = session::parse_address(host);
  if (!address) return fail(Errc::kConfig, kExpectedAddress);
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (error != std::errc() || end != digits.data() + digits.size()) {
    return fail(Errc::kConfig, "expected a port from 0 to 65535 after the address");
  }
  return ListenAddress{.address = *address, .port = port};
}

std::string to_text(const ListenAddress& address) {
  const std::string host = session::to_text(address.address);
  const std::string port = std::to_string(address.port);
  return address.address.is_v4() ? host + ":" + port : "[" + host + "]:" + port;
}

session::AccessRules everybody() {
  session::AccessRules rules;
  for (const char* text : {"0.0.0.0/0", "::/0"}) {
    const Result<session::Prefix> prefix = session::parse_prefix(text);
    CHECK(prefix.has_value());
    rules.allow.push_back(*prefix);
  }
  return rules;
}

bool is_module_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxModuleNameBytes && is_alphanumeric(name.front()) &&
         std::all_of(name.begin(), name.end(),
                     [](char c) { return is_alphanumeric(c) || c == '.' || c == '_' || c == '-'; });
}

const Module* Config::find_module(std::string_view name) const {
  const auto found = std::find_if(modules.begin(), modules.end(),
                                  [&](const Module& module) { return module.name == name; });
  return found == modules.end() ? nullptr : &*found;
}

}  // namespace superlifter::config
