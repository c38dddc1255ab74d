// See sender.h.
#include "core/io/sender.h"

#include <errno.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>

namespace superlifter::io {
namespace {

constexpr size_t kCopyBytes = 128 * kKiB;
constexpr std::array<uint8_t, 64 * kKiB> kZeros{};

bool means_would_block(int number) {
  return number == EAGAIN || number == EWOULDBLOCK;
}

// What sendfile says of the out-fd; anything else may be the file's fault, and copying finds out
// whose.
bool means_broken(int number) {
  return number == EPIPE || number == ECONNRESET || number == ETIMEDOUT || number == ENOTCONN ||
         number == ECONNABORTED || number == EHOSTUNREACH || number == ENETUNREACH ||
         number == ENETDOWN || number == EBADF;
}

// One write of up to iov.size() buffers; adds to `sent`. False when nothing more can leave now.
bool write_some(int fd, FdKind kind, std::span<iovec> buffers, bool more_follows, Sent& sent) {
  while (true) {
    ssize_t wrote = 0;
    if (kind == FdKind::kSocket) {
      msghdr message{};
      message.msg_iov = buffers.data();
      message.msg_iovlen = buffers.size();
      wrote = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT | (more_follows ? MSG_MORE : 0));
    } else {
      wrote = writev(fd, buffers.data(), static_cast<int>(buffers.size()));
    }
    if (wrote >= 0) {
      sent.count += static_cast<uint64_t>(wrote);
      return true;
    }
    if (errno == EINTR) continue;
    if (means_would_block(errno)) {
      sent.would_block = true;
    } else {
      sent.sys_errno = errno;
    }
    return false;
  }
}

// Writes bytes; true when all have left.
bool write_all(int fd, FdKind kind, ByteView bytes, bool more_follows, Sent& sent) {
  while (!bytes.empty()) {
    iovec buffer{const_cast<uint8_t*>(bytes.data()), bytes.size()};
    const uint64_t before = sent.count;
    if (!write_some(fd, kind, {&buffer, 1}, more_follows, sent)) return false;
    bytes = bytes.subspan(static_cast<size_t>(sent.count - before));
  }
  return true;
}

// The byte pieces from pieces[0] on, of which `skip` bytes have left; true when all have.
bool send_byte_run(int fd, FdKind kind, std::span<const Piece> run, bool more_follows, Sent& sent) {
  size_t skip = 0;
  while (!run.empty()) {
    std::array<iovec, kGatherPieces> buffers{};
    const size_t count = std::min(run.size(), buffers.size());
    for (size_t i = 0; i < count; ++i) {
      const ByteView bytes = i == 0 ? run[i].bytes.subspan(skip) : run[i].bytes;
      buffers[i] = {const_cast<uint8_t*>(bytes.data()), bytes.size()};
    }
    const uint64_t before = sent.count;
    if (!write_some(fd, kind, {buffers.data(), count}, more_follows, sent)) return false;
    skip += static_cast<size_t>(sent.count - before);
    while (!run.empty() && skip >= run.front().bytes.size()) {
      skip -= run.front().bytes.size();
      run = run.subspan(1);
    }
  }
  return true;
}

// The rest of a range whose file is no longer long enough.
bool send_zeros(int fd, FdKind kind, uint64_t count, Sent& sent) {
  while (count > 0) {
    const size_t part = static_cast<size_t>(std::min<uint64_t>(count, kZeros.size()));
    if (!write_all(fd, kind, ByteView(kZeros).first(part), part < count, sent)) return false;
    count -= part;
  }
  return true;
}

// The range through a buffer of ours. Bytes that were read and not taken are read again next time.
bool copy_range(int fd, FdKind kind, const FileRange& range, uint64_t done, Sent& sent) {
  Bytes buffer(kCopyBytes);
  while (done < range.length_bytes) {
    const uint64_t want = std::min<uint64_t>(range.length_bytes - done, buffer.size());
    const ssize_t got = pread(range.file->fd.get(), buffer.data(), static_cast<size_t>(want),
                              static_cast<off_t>(range.offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      range.file->shrunk.store(true, std::memory_order_relaxed);
      return send_zeros(fd, kind, range.length_bytes - done, sent);
    }
    const ByteView bytes = ByteView(buffer).first(static_cast<size_t>(got));
    if (!write_all(fd, kind, bytes, /*more_follows=*/false, sent)) return false;
    done += static_cast<uint64_t>(got);
  }
  return true;
}

// True when the whole range has left.
bool send_range(int fd, FdKind kind, const FileRange& range, Sent& sent) {
  uint64_t done = 0;
  while (done < range.length_bytes) {
    if (range.file->shrunk.load(std::memory_order_relaxed)) {
      return send_zeros(fd, kind, range.length_bytes - done, sent);
    }
    off_t offset = static_cast<off_t>(range.offset + done);
    const ssize_t moved =
        sendfile(fd, range.file->fd.get(), &offset, static_cast<size_t>(range.length_bytes - done));
    if (moved > 0) {
      done += static_cast<uint64_t>(moved);
      sent.count += static_cast<uint64_t>(moved);
    } else if (moved == 0) {
      range.file->shrunk.store(true, std::memory_order_relaxed);
    } else if (means_would_block(errno)) {
      sent.would_block = true;
      return false;
    } else if (means_broken(errno)) {
      sent.sys_errno = errno;
      return false;
    } else if (errno != EINTR) {
      return copy_range(fd, kind, range, done, sent);
    }
  }
  return true;
}

}  // namespace

FdKind kind_of(int fd) {
  struct stat status{};
  return fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode) ? FdKind::kSocket : FdKind::kOther;
}

bool gather(const Outbox& outbox, std::vector<Piece>& pieces) {
  pieces.clear();
  bool has_range = false;
  uint64_t total = 0;
  for (const OutItem& item : outbox.items()) {
    has_range = has_range || item.is_range();
    const uint64_t most = has_range ? kGatherRangeBytes : kGatherBytes;
    if (pieces.size() == kGatherPieces || total >= most) break;
    Piece piece;
    if (item.is_range()) {
      piece.range = item.range;
      piece.range.length_bytes = std::min(item.range.length_bytes, most - total);
      total += piece.range.length_bytes;
    } else {
      piece.bytes = ByteView(item.bytes).subspan(item.sent);
      total += piece.bytes.size();
    }
    pieces.push_back(std::move(piece));
  }
  return has_range;
}

Sent send_pieces(int fd, FdKind kind, std::span<const Piece> pieces) {
  Sent sent;
  while (!pieces.empty()) {
    size_t run = 0;
    while (run < pieces.size() && !pieces[run].is_range())
      ++run;
    if (run > 0) {
      const bool more_follows = run < pieces.size();
      if (!send_byte_run(fd, kind, pieces.first(run), more_follows, sent)) return sent;
      pieces = pieces.subspan(run);
      continue;
    }
    if (!send_range(fd, kind, pieces.front().range, sent)) return sent;
    pieces = pieces.subspan(1);
  }
  return sent;
}

}  // namespace superlifter::io
