// stdio mode: one session on fds 0 and 1, for ssh, inetd and systemd sockets. The same Connection,
// the same rules and timeouts as in a worker, without a master: whoever started this process
// supervises it. No catalog is made here: a module that has none is NOT_READY.
#pragma once

#include "daemon/settings.h"

namespace superlifter::daemon {

// Whether stdin is a connected socket, which is how inetd and systemd hand one over.
bool stdin_is_connected_socket();

// Serves the session to its end; the exit code of the process. stdout belongs to the protocol:
// whatever else might print is sent to stderr.
int run_stdio(const Settings& settings);

}  // namespace superlifter::daemon
