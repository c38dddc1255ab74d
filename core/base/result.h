// Expected failures as values.
//
// A function that can fail in a way its caller must reckon with returns Result<T> (or Status where
// there is nothing to return). The code is what a caller may branch on; the message names the
// object and the attempt ("open generation 17: ..."), for a person; the errno is kept where the
// kernel spoke. Promises that our own code breaks are CHECK (check.h), never an Error.
#pragma once

#include <cstring>
#include <expected>
#include <string>
#include <utility>

namespace superlifter {

// What a caller may branch on. tests and the client's exit codes rely on the meaning, not the
// order.
enum class Errc {
  kIo,           // The kernel refused; sys_errno tells why.
  kTruncated,    // Bytes ended before the value did.
  kCorrupt,      // A digest or a stored invariant fails.
  kProtocol,     // The peer broke PROTOCOL.md.
  kUnsupported,  // A version or ability that this build does not have.
  kLimit,        // A bound of limits.h or of the configuration was reached.
  kDenied,       // Access rules refuse.
  kNotFound,     // No such module, entry or file.
  kBusy,         // No room now; trying later can succeed.
  kStale,        // The file changed since it was indexed.
  kGone,         // The generation is no longer kept.
  kConfig,       // Configuration or command line; the message carries file:line:col.
  kTimeout,      // The peer was silent for longer than it may be.
  kClosed,       // The peer ended the byte stream.
};

struct Error {
  Errc code = Errc::kIo;
  int sys_errno = 0;  // 0 unless the kernel spoke.
  std::string message;
};

template <class T>
using Result = std::expected<T, Error>;
using Status = Result<void>;

// A failure to return as it stands.
[[nodiscard]] inline std::unexpected<Error> fail(Errc code, std::string message) {
  return std::unexpected(Error{code, 0, std::move(message)});
}

// A failure of a system call: "<attempt>: <strerror(number)>", code kIo (kNotFound for ENOENT).
[[nodiscard]] inline std::unexpected<Error> fail_errno(int number, const std::string& attempt) {
  const Errc code = number == 2 /* ENOENT */ ? Errc::kNotFound : Errc::kIo;
  return std::unexpected(Error{code, number, attempt + ": " + std::strerror(number)});
}

// The same failure with the caller's attempt in front: "<attempt>: <message>".
[[nodiscard]] inline std::unexpected<Error> fail_in(const std::string& attempt, Error error) {
  error.message = attempt + ": " + error.message;
  return std::unexpected(std::move(error));
}

}  // namespace superlifter
