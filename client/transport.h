// Transport: the seam that yields a byte stream to a server, and its TCP form. A child ssh with two
// pipes is another form, behind the same call.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "client/source_uri.h"
#include "core/base/result.h"
#include "core/io/stream.h"

namespace superlifter::client {

class Transport {
 public:
  virtual ~Transport() = default;

  // Makes a new connection; may be called again, for several connections or to try once more.
  // Blocks, for at most the timeout it was made with. Signals do not end it: a caller that wants ^C
  // to work here leaves the default action in place, or ends the process from its handler.
  // kNotFound: the name does not resolve. kTimeout: not within the time. kIo (with errno): refused,
  // unreachable. kUnsupported: this build cannot.
  // The message names the host and port and the addresses that were tried.
  [[nodiscard]] virtual Result<io::ByteStream> connect() = 0;

  // "host:port", for messages.
  virtual std::string name() const = 0;
};

// TCP: every address of the name in the resolver's order, one overall deadline of which each
// address that is still to be tried gets an equal share (so that a dead IPv6 route leaves time for
// IPv4). The socket is non-blocking, close-on-exec, without Nagle's delay, with keepalive.
class TcpTransport final : public Transport {
 public:
  // connect_timeout_ms 0: as long as the kernel tries.
  TcpTransport(std::string host, uint16_t port, uint64_t connect_timeout_ms);

  [[nodiscard]] Result<io::ByteStream> connect() override;
  std::string name() const override;

 private:
  std::string host_;
  uint16_t port_;
  uint64_t connect_timeout_ms_;
};

// The transport for a source or a host. kUnsupported for a scheme that this build cannot speak.
[[nodiscard]] Result<std::unique_ptr<Transport>> make_transport(const SourceUri& source,
                                                                uint64_t connect_timeout_ms);

}  // namespace superlifter::client
