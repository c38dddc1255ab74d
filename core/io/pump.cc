// See pump.h.
#include "core/io/pump.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "core/base/clock.h"
#include "core/io/sender.h"

namespace superlifter::io {
namespace {

constexpr size_t kBuffersPerSend = 64;  // Far below IOV_MAX (1,024).

Status make_non_blocking(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    return fail_errno(errno, "make a stream non-blocking");
  }
  return {};
}

Error stream_failure(int number, const std::string& attempt) {
  const bool by_peer = number == EPIPE || number == ECONNRESET;
  return {by_peer ? Errc::kClosed : Errc::kIo, number, attempt + ": " + std::strerror(number)};
}

bool means_later(int number) {
  return number == EAGAIN || number == EWOULDBLOCK || number == EINTR;
}

}  // namespace

Result<Pump> Pump::make(ByteStream stream) {
  Pump pump;
  pump.stream_ = std::move(stream);
  if (Status done = make_non_blocking(pump.stream_.in_fd()); !done) {
    return std::unexpected(done.error());
  }
  if (Status done = make_non_blocking(pump.stream_.out_fd()); !done) {
    return std::unexpected(done.error());
  }
  pump.is_socket_ = kind_of(pump.stream_.out_fd()) == FdKind::kSocket;
  pump.wake_ = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!pump.wake_) return fail_errno(errno, "make an eventfd");
  return pump;
}

void Pump::send(Bytes bytes) {
  if (bytes.empty()) return;
  unsent_ += bytes.size();
  out_.push_back(std::move(bytes));
}

void Pump::wake() const {
  const uint64_t one = 1;
  // A full counter already wakes.
  [[maybe_unused]] const ssize_t ignored = ::write(wake_.get(), &one, sizeof(one));
}

Status Pump::send_some() {
  std::array<iovec, kBuffersPerSend> buffers{};
  const size_t count = std::min(out_.size(), buffers.size());
  for (size_t i = 0; i < count; ++i) {
    const size_t skip = i == 0 ? front_sent_ : 0;
    buffers[i] = {out_[i].data() + skip, out_[i].size() - skip};
  }
  ssize_t wrote = 0;
  if (is_socket_) {
    msghdr message{};
    message.msg_iov = buffers.data();
    message.msg_iovlen = count;
    wrote = sendmsg(stream_.out_fd(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } else {
    wrote = writev(stream_.out_fd(), buffers.data(), static_cast<int>(count));
  }
  if (wrote < 0) {
    if (means_later(errno)) return {};
    return std::unexpected(stream_failure(errno, "send"));
  }
  sent_ += static_cast<uint64_t>(wrote);
  unsent_ -= static_cast<uint64_t>(wrote);
  size_t left = static_cast<size_t>(wrote);
  while (left > 0) {
    const size_t part = std::min(left, out_.front().size() - front_sent_);
    front_sent_ += part;
    left -= part;
    if (front_sent_ == out_.front().size()) {
      out_.pop_front();
      front_sent_ = 0;
    }
  }
  return {};
}

Status Pump::receive_some(MutableBytes buffer, Turn& turn) {
  const ssize_t got = ::read(stream_.in_fd(), buffer.data(), buffer.size());
  if (got > 0) {
    turn.received_bytes = static_cast<size_t>(got);
    received_ += static_cast<uint64_t>(got);
  } else if (got == 0) {
    ended_ = true;
  } else if (!means_later(errno)) {
    return std::unexpected(stream_failure(errno, "receive"));
  }
  return {};
}

Result<Pump::Turn> Pump::turn(MutableBytes buffer, int timeout_ms) {
  SystemClock clock;
  const uint64_t deadline_ms =
      timeout_ms < 0 ? 0 : clock.monotonic_ms() + static_cast<uint64_t>(timeout_ms);
  Turn turn;
  const uint64_t sent_before = sent_;
  while (true) {
    if (send_failure_ && ended_) return std::unexpected(*send_failure_);
    const bool receive = !buffer.empty() && !ended_;
    const bool send = unsent_ > 0 && !send_failure_;
    // An fd that is not waited for is left out: its hang-up would be reported for ever.
    std::array<pollfd, 3> waits{{
        {receive ? stream_.in_fd() : -1, POLLIN, 0},
        {send ? stream_.out_fd() : -1, POLLOUT, 0},
        {wake_.get(), POLLIN, 0},
    }};
    int wait_ms = -1;
    if (timeout_ms >= 0) {
      const uint64_t now_ms = clock.monotonic_ms();
      wait_ms = now_ms >= deadline_ms ? 0 : static_cast<int>(deadline_ms - now_ms);
    }
    const int ready = poll(waits.data(), waits.size(), wait_ms);
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "wait for the peer");
    if (ready == 0) {
      turn.timed_out = true;
      turn.ended = ended_;
      return turn;
    }
    if (ready < 0) continue;
    if (waits[2].revents != 0) {
      uint64_t count = 0;
      turn.woken = ::read(wake_.get(), &count, sizeof(count)) > 0;
    }
    if (waits[1].revents != 0) {
      if (Status sent = send_some(); !sent) send_failure_ = sent.error();
    }
    if (waits[0].revents != 0) {
      if (Status received = receive_some(buffer, turn); !received) {
        return std::unexpected(received.error());
      }
    }
    if (send_failure_ && ended_) return std::unexpected(*send_failure_);
    turn.ended = ended_;
    if (turn.received_bytes > 0 || turn.woken || sent_ > sent_before || ended_) return turn;
  }
}

}  // namespace superlifter::io
