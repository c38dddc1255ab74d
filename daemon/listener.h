// Listener: the listening sockets of the daemon. Bound once by the master and shared by all
// workers, so that no waiting connection is lost with a worker.
#pragma once

#include <vector>

#include "config/config.h"
#include "core/base/result.h"
#include "core/base/unique_fd.h"

namespace superlifter::daemon {

struct Listener {
  UniqueFd fd;                    // Listening, non-blocking, close-on-exec.
  config::ListenAddress address;  // With the real port.
};

// Binds all of them or none. "[::]" takes IPv4 connections too, unless 0.0.0.0 with the same port
// is in the list; on a host without IPv6 it becomes 0.0.0.0. kIo names the address that failed.
[[nodiscard]] Result<std::vector<Listener>> bind_all(
    const std::vector<config::ListenAddress>& addresses);

}  // namespace superlifter::daemon
