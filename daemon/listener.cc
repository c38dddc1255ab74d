// See listener.h.
#include "daemon/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "core/base/log.h"

namespace superlifter::daemon {
namespace {

// The kernel cuts it at net.core.somaxconn (4,096 since Linux 5.4).
constexpr int kBacklog = 4096;

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
};

SocketAddress to_socket_address(const config::ListenAddress& address) {
  SocketAddress out;
  if (address.address.is_v4()) {
    auto* const v4 = reinterpret_cast<sockaddr_in*>(&out.storage);
    v4->sin_family = AF_INET;
    v4->sin_port = htons(address.port);
    std::memcpy(&v4->sin_addr, address.address.bytes.data() + 12, sizeof(v4->sin_addr));
    out.size = sizeof(sockaddr_in);
  } else {
    auto* const v6 = reinterpret_cast<sockaddr_in6*>(&out.storage);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(address.port);
    std::memcpy(&v6->sin6_addr, address.address.bytes.data(), sizeof(v6->sin6_addr));
    out.size = sizeof(sockaddr_in6);
  }
  return out;
}

bool is_any_v6(const config::ListenAddress& address) {
  return address.address == session::Address{};
}

config::ListenAddress any_v4(uint16_t port) {
  config::ListenAddress any;
  any.address.bytes[10] = 0xFF;
  any.address.bytes[11] = 0xFF;
  any.port = port;
  return any;
}

Result<Listener> bind_one(const config::ListenAddress& address, bool v6_only) {
  const std::string attempt = "listen on " + config::to_text(address);
  const SocketAddress to = to_socket_address(address);
  Listener listener;
  listener.fd = UniqueFd(
      socket(to.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP));
  if (!listener.fd) return fail_errno(errno, attempt);
  const int fd = listener.fd.get();
  const int on = 1;
  // A restart must not wait for connections of before in TIME_WAIT.
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0) {
    return fail_errno(errno, attempt);
  }
  if (to.storage.ss_family == AF_INET6) {
    const int only = v6_only ? 1 : 0;
    if (setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only)) != 0) {
      return fail_errno(errno, attempt);
    }
  }
  if (bind(fd, reinterpret_cast<const sockaddr*>(&to.storage), to.size) != 0 ||
      listen(fd, kBacklog) != 0) {
    return fail_errno(errno, attempt);
  }
  SocketAddress real;
  real.size = sizeof(real.storage);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&real.storage), &real.size) != 0) {
    return fail_errno(errno, attempt);
  }
  listener.address = address;
  listener.address.port = ntohs(to.storage.ss_family == AF_INET
                                    ? reinterpret_cast<sockaddr_in*>(&real.storage)->sin_port
                                    : reinterpret_cast<sockaddr_in6*>(&real.storage)->sin6_port);
  return listener;
}

}  // namespace

Result<std::vector<Listener>> bind_all(const std::vector<config::ListenAddress>& addresses) {
  std::vector<Listener> listeners;
  for (const config::ListenAddress& address : addresses) {
    const bool v4_is_listed = std::any_of(
        addresses.begin(), addresses.end(),
        [&](const config::ListenAddress& other) { return other == any_v4(address.port); });
    Result<Listener> bound = bind_one(address, v4_is_listed || !is_any_v6(address));
    const bool no_v6 = !bound && (bound.error().sys_errno == EAFNOSUPPORT ||
                                  bound.error().sys_errno == EADDRNOTAVAIL);
    if (no_v6 && is_any_v6(address)) {
      if (v4_is_listed) continue;
      log_info("{}: no IPv6 here, so IPv4 only", bound.error().message);
      bound = bind_one(any_v4(address.port), /*v6_only=*/false);
    }
    if (!bound) return std::unexpected(bound.error());
    listeners.push_back(std::move(*bound));
  }
  return listeners;
}

}  // namespace superlifter::daemon
