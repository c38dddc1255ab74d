// UniqueFd: owns one file descriptor from birth to close. The only place that calls close(2).
#pragma once

#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "core/base/result.h"

namespace superlifter {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { reset(); }

  // The descriptor, still owned here; -1 when there is none.
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  explicit operator bool() const { return valid(); }

  // Gives the descriptor away.
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }

  // Closes now and is silent about a failure.
  void reset() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

  // Closes now; for written files, where a failing close means lost bytes.
  [[nodiscard]] Status close_checked(const std::string& attempt) {
    if (fd_ >= 0 && ::close(std::exchange(fd_, -1)) != 0) return fail_errno(errno, attempt);
    return {};
  }

 private:
  int fd_ = -1;  // Owned, or -1.
};

}  // namespace superlifter
