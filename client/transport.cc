#include "client/transport.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <limits>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <vector>

#include "core/base/clock.h"

namespace superlifter::client {
namespace {

constexpr size_t kMaxAddresses = 32;  // Of one name; the rest is not tried.

// A peer that vanished without a word (power cut, dropped NAT entry) is noticed after about two
// minutes of silence, even by a caller without an I/O timeout.
constexpr int kKeepaliveIdleSeconds = 60;
constexpr int kKeepaliveIntervalSeconds = 15;
constexpr int kKeepaliveProbes = 4;

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// "192.0.2.1", "2001:db8::1".
std::string to_text(const SocketAddress& address) {
  char host[NI_MAXHOST] = {};
  const int code =
      getnameinfo(address.get(), address.size, host, sizeof(host), nullptr, 0, NI_NUMERICHOST);
  return code == 0 ? host : "?";
}

// What a lookup came to.
struct Resolution {
  int code = 0;       // Of getaddrinfo.
  int sys_errno = 0;  // For EAI_SYSTEM.
  std::vector<SocketAddress> addresses;
};

Resolution resolve_now(const std::string& host, uint16_t port, int flags) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* list = nullptr;
  Resolution out;
  errno = 0;
  out.code = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list);
  out.sys_errno = errno;
  if (out.code != 0) return out;
  for (const addrinfo* at = list; at != nullptr && out.addresses.size() < kMaxAddresses;
       at = at->ai_next) {
    SocketAddress address;
    if (at->ai_addrlen > sizeof(address.storage)) continue;
    std::memcpy(&address.storage, at->ai_addr, at->ai_addrlen);
    address.size = at->ai_addrlen;
    out.addresses.push_back(address);
  }
  freeaddrinfo(list);
  return out;
}

// A point in monotonic time, or none.
class Deadline {
 public:
  // 0: none.
  explicit Deadline(uint64_t timeout_ms)
      : unlimited_(timeout_ms == 0), at_ms_(SystemClock().monotonic_ms() + timeout_ms) {}

  bool unlimited() const { return unlimited_; }
  // 0 once it has passed. REQUIRES: not unlimited.
  uint64_t remaining_ms() const {
    const uint64_t now_ms = SystemClock().monotonic_ms();
    return now_ms < at_ms_ ? at_ms_ - now_ms : 0;
  }
  // For poll(2).
  int poll_ms() const {
    if (unlimited_) return -1;
    return static_cast<int>(std::min<uint64_t>(remaining_ms(), std::numeric_limits<int>::max()));
  }

 private:
  bool unlimited_;
  uint64_t at_ms_;
};

// A lookup in a thread of its own: getaddrinfo cannot be told to hurry and may take the better part
// of a minute when a name server is down.
struct Lookup {
  std::mutex mutex;
  std::condition_variable finished;
  std::optional<Resolution> resolution;  // Guarded by mutex.
};

// Nothing: not within the deadline.
std::optional<Resolution> resolve(const std::string& host, uint16_t port,
                                  const Deadline& deadline) {
  Resolution numeric = resolve_now(host, port, AI_NUMERICHOST);
  if (numeric.code == 0 || deadline.unlimited()) {
    return numeric.code == 0 ? numeric : resolve_now(host, port, 0);
  }
  // Owned by the caller and by the thread, which may outlive the call.
  const auto lookup = std::make_shared<Lookup>();
  // The thread must not catch the program's signals.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  bool started = true;
  try {
    std::thread([lookup, host, port] {
      Resolution resolution = resolve_now(host, port, 0);
      const std::lock_guard lock(lookup->mutex);
      lookup->resolution = std::move(resolution);
      lookup->finished.notify_one();
    }).detach();
  } catch (const std::system_error&) {
    started = false;  // No thread to be had: better without a deadline than not at all.
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (!started) return resolve_now(host, port, 0);
  std::unique_lock lock(lookup->mutex);
  lookup->finished.wait_for(lock, std::chrono::milliseconds(deadline.remaining_ms()),
                            [&] { return lookup->resolution.has_value(); });
  return lookup->resolution;
}

void set_option(int fd, int level, int name, int value) {
  // A socket without one of these still works; nothing to report.
  static_cast<void>(setsockopt(fd, level, name, &value, sizeof(value)));
}

// A connect to a free port of this machine can meet itself (simultaneous open) and echo our own
// hello.
bool is_connected_to_itself(int fd) {
  SocketAddress here;
  SocketAddress there;
  here.size = there.size = sizeof(sockaddr_storage);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&here.storage), &here.size) != 0) return false;
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&there.storage), &there.size) != 0) return false;
  return here.size == there.size && std::memcmp(&here.storage, &there.storage, here.size) == 0;
}

struct Attempt {
  UniqueFd fd;        // Valid: connected.
  int sys_errno = 0;  // Else why not; ETIMEDOUT when the time ran out.
};

Attempt try_address(const SocketAddress& address, const Deadline& deadline) {
  UniqueFd fd(socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return {{}, errno};
  set_option(fd.get(), IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd.get(), SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd.get(), IPPROTO_TCP, TCP_KEEPIDLE, kKeepaliveIdleSeconds);
  set_option(fd.get(), IPPROTO_TCP, TCP_KEEPINTVL, kKeepaliveIntervalSeconds);
  set_option(fd.get(), IPPROTO_TCP, TCP_KEEPCNT, kKeepaliveProbes);
  if (connect(fd.get(), address.get(), address.size) != 0) {
    // After EINTR the attempt goes on by itself, as after EINPROGRESS.
    if (errno != EINPROGRESS && errno != EINTR) return {{}, errno};
    pollfd waiting{.fd = fd.get(), .events = POLLOUT, .revents = 0};
    int ready = -1;
    do {
      ready = poll(&waiting, 1, deadline.poll_ms());
    } while (ready < 0 && errno == EINTR);
    if (ready < 0) return {{}, errno};
    if (ready == 0) return {{}, ETIMEDOUT};
    int failure = 0;
    socklen_t size = sizeof(failure);
    if (getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &failure, &size) != 0) return {{}, errno};
    if (failure != 0) return {{}, failure};
  }
  if (is_connected_to_itself(fd.get())) return {{}, ECONNREFUSED};
  return {std::move(fd), 0};
}

std::string timeout_text(uint64_t timeout_ms) {
  if (timeout_ms % 1000 == 0) return fmt::format("{} s", timeout_ms / 1000);
  return fmt::format("{} ms", timeout_ms);
}

}  // namespace

TcpTransport::TcpTransport(std::string host, uint16_t port, uint64_t connect_timeout_ms)
    : host_(std::move(host)), port_(port), connect_timeout_ms_(connect_timeout_ms) {}

std::string TcpTransport::name() const {
  return host_.contains(':') ? fmt::format("[{}]:{}", host_, port_)
                             : fmt::format("{}:{}", host_, port_);
}

Result<io::ByteStream> TcpTransport::connect() {
  const Deadline deadline(connect_timeout_ms_);
  const std::string attempt = "connect to " + name();
  const std::optional<Resolution> resolution = resolve(host_, port_, deadline);
  if (!resolution) {
    return fail(Errc::kTimeout, fmt::format("{}: the name was not resolved within {}", attempt,
                                            timeout_text(connect_timeout_ms_)));
  }
  if (resolution->code == EAI_SYSTEM) {
    Error error{Errc::kIo, resolution->sys_errno, {}};
    error.message = fmt::format("{}: resolve the name: {}", attempt,
                                std::system_category().message(resolution->sys_errno));
    return std::unexpected(std::move(error));
  }
  if (resolution->code != 0 || resolution->addresses.empty()) {
    const char* why = resolution->code != 0 ? gai_strerror(resolution->code) : "no address";
    return fail(Errc::kNotFound, fmt::format("{}: the name does not resolve: {}", attempt, why));
  }
  int last_errno = ETIMEDOUT;
  std::string tried;
  const std::vector<SocketAddress>& addresses = resolution->addresses;
  for (size_t i = 0; i < addresses.size(); ++i) {
    uint64_t share_ms = 0;  // Unlimited.
    if (!deadline.unlimited()) {
      const uint64_t remaining_ms = deadline.remaining_ms();
      if (remaining_ms == 0) {
        last_errno = ETIMEDOUT;
        break;
      }
      share_ms = std::max<uint64_t>(1, remaining_ms / (addresses.size() - i));
    }
    Attempt connected = try_address(addresses[i], Deadline(share_ms));
    if (connected.fd) {
      io::ByteStream stream;
      stream.in = std::move(connected.fd);
      return stream;
    }
    last_errno = connected.sys_errno;
    if (!tried.empty()) tried += ", ";
    tried += to_text(addresses[i]);
  }
  Error error{last_errno == ETIMEDOUT ? Errc::kTimeout : Errc::kIo, last_errno, {}};
  error.message =
      last_errno == ETIMEDOUT && !deadline.unlimited()
          ? fmt::format("{}: no answer within {}", attempt, timeout_text(connect_timeout_ms_))
          : fmt::format("{}: {}", attempt, std::system_category().message(last_errno));
  if (!tried.empty() && tried != host_) error.message += " (tried " + tried + ")";
  return std::unexpected(std::move(error));
}

Result<std::unique_ptr<Transport>> make_transport(const SourceUri& source,
                                                  uint64_t connect_timeout_ms) {
  if (source.scheme == Scheme::kSsh) {
    return fail(
        Errc::kUnsupported,
        source.text() + ": this version has no ssh transport yet; expected host[:port]/module");
  }
  return std::make_unique<TcpTransport>(source.host, source.port_or_default(), connect_timeout_ms);
}

}  // namespace superlifter::client
