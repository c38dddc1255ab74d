// See peer.h.
#include "daemon/peer.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>

namespace superlifter::daemon {

std::optional<session::Address> peer_address(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof(storage);
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return std::nullopt;
  session::Address address;
  if (storage.ss_family == AF_INET) {
    address.bytes[10] = 0xFF;
    address.bytes[11] = 0xFF;
    std::memcpy(address.bytes.data() + 12, &reinterpret_cast<sockaddr_in*>(&storage)->sin_addr, 4);
    return address;
  }
  if (storage.ss_family == AF_INET6) {
    std::memcpy(address.bytes.data(), &reinterpret_cast<sockaddr_in6*>(&storage)->sin6_addr, 16);
    return address;
  }
  return std::nullopt;
}

}  // namespace superlifter::daemon
