// RelPath: a validated relative path of bytes. A value of this type has no empty, "." or ".."
// component, no NUL, no leading or trailing slash, names of at most 255 bytes and at most 4,095
// bytes in all. The empty path names the root itself. Whatever came from a peer, a command line or
// a disk becomes a RelPath before any file system call sees it.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "core/base/result.h"

namespace superlifter {

// True for a name that may stand in a directory: 1 to 255 bytes, not "." or "..", no '/' and no
// NUL.
bool is_valid_name(std::string_view name);

class RelPath {
 public:
  RelPath() = default;

  // kProtocol when `text` breaks a rule above, kLimit when it is only too long; the message quotes
  // it, escaped.
  [[nodiscard]] static Result<RelPath> parse(std::string_view text);

  // This path with `name` below it. kProtocol for a bad name, kLimit when it becomes too long.
  [[nodiscard]] Result<RelPath> child(std::string_view name) const;

  const std::string& text() const { return text_; }
  bool is_root() const { return text_.empty(); }
  // The path without its last name; the root's parent is the root.
  RelPath parent() const;
  // The last name; empty for the root.
  std::string_view name() const;

  friend bool operator==(const RelPath&, const RelPath&) = default;

 private:
  explicit RelPath(std::string text) : text_(std::move(text)) {}

  std::string text_;  // Keeps every rule in the prose above.
};

}  // namespace superlifter
