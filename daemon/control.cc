// See control.h.
#include "daemon/control.h"

#include <errno.h>
#include <sys/socket.h>

#include <array>

#include "core/base/coding.h"
#include "core/base/limits.h"

namespace superlifter::daemon {
namespace {

// Type, milliseconds, counted module name.
constexpr size_t kMaxMessageBytes = 4 + 4 + 10 + kMaxModuleNameBytes;

}  // namespace

Result<std::pair<UniqueFd, UniqueFd>> make_control_pair() {
  int fds[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0) {
    return fail_errno(errno, "make a control socket");
  }
  return std::pair{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

Status send_control(int fd, const ControlMessage& message) {
  Bytes bytes;
  Writer writer(bytes);
  writer.u32(static_cast<uint32_t>(message.type));
  writer.u32(message.drain_ms);
  writer.counted(message.module);
  while (send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) {
      return fail(Errc::kBusy, "control message: the other process does not keep up");
    }
    if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN) {
      return fail(Errc::kClosed, "control message: the other process is gone");
    }
    return fail_errno(errno, "control message");
  }
  return {};
}

Result<std::optional<ControlMessage>> receive_control(int fd) {
  std::array<uint8_t, kMaxMessageBytes> buffer{};
  ssize_t got = 0;
  do {
    got = recv(fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
  } while (got < 0 && errno == EINTR);
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return std::optional<ControlMessage>();
  if (got == 0 || (got < 0 && errno == ECONNRESET)) {
    return fail(Errc::kClosed, "the other process is gone");
  }
  if (got < 0) return fail_errno(errno, "receive a control message");
  Reader reader(ByteView(buffer).first(static_cast<size_t>(got)));
  ControlMessage message;
  const uint32_t type = reader.u32();
  message.drain_ms = reader.u32();
  message.module = reader.counted(kMaxModuleNameBytes);
  const bool known = type >= static_cast<uint32_t>(ControlMessage::Type::kDrain) &&
                     type <= static_cast<uint32_t>(ControlMessage::Type::kReady);
  if (!reader.finish("control message") || !known) {
    return fail(Errc::kCorrupt, "a control message that this program does not know");
  }
  message.type = static_cast<ControlMessage::Type>(type);
  return std::optional(std::move(message));
}

}  // namespace superlifter::daemon
