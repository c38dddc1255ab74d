// peer_address: who is at the other end of a socket.
#pragma once

#include <optional>

#include "core/session/access.h"

namespace superlifter::daemon {

// The address of a TCP peer; nothing for a pipe, a Unix socket, or a peer that is gone already.
std::optional<session::Address> peer_address(int fd);

}  // namespace superlifter::daemon
