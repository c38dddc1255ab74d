// What the io tests share: pairs of fds, open requests without fs/beneath, bytes that tell their
// place.
#pragma once

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/base/file_request.h"
#include "core/base/outbox.h"
#include "core/base/unique_fd.h"

namespace superlifter::tests {

inline std::pair<UniqueFd, UniqueFd> socket_pair() {
  int fds[2] = {-1, -1};
  CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

// Read end, write end.
inline std::pair<UniqueFd, UniqueFd> pipe_pair() {
  int fds[2] = {-1, -1};
  CHECK(pipe2(fds, O_CLOEXEC) == 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

inline Bytes to_bytes(std::string_view text) {
  return {text.begin(), text.end()};
}

// Text in which every position looks different from its neighbours.
inline std::string pattern(size_t size) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i)
    text[i] = static_cast<char>((i * 31 + i / 251) % 255 + 1);
  return text;
}

inline OpenRequest open_request(int root_fd, const std::string& path) {
  OpenRequest request;
  request.root_fd = root_fd;
  request.path = path;
  request.how.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;
  request.how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  return request;
}

inline std::shared_ptr<OpenFile> open_file(const std::string& path) {
  auto file = std::make_shared<OpenFile>();
  file->fd = UniqueFd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  CHECK(file->fd.valid());
  return file;
}

// Everything until the end of the stream; blocks, so it belongs into a thread of the test.
inline std::string read_to_end(int fd) {
  std::string all;
  std::string piece(65536, '\0');
  while (true) {
    const ssize_t got = read(fd, piece.data(), piece.size());
    if (got <= 0) return all;
    all.append(piece, 0, static_cast<size_t>(got));
  }
}

}  // namespace superlifter::tests
