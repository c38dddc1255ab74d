// Glob: one path pattern with rsync's meaning, matched in linear space and bounded time.
//
//   *    any bytes but '/'          ?      one byte but '/'
//   **   any bytes                  [a-z]  one byte of a class; [!a-z] or [^a-z] one not in it
//   \x   the byte x itself        [[:digit:]] one byte of a POSIX class, as ASCII has it
//
// A leading '/' anchors the pattern at the root of the tree; else it may match at the end of the
// path, beginning at a name. A trailing '/' matches directories only. A pattern without an inner
// '/' is matched against the last name.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

namespace superlifter {

enum class IsDirectory : bool { kNo = false, kYes = true };

class Glob {
 public:
  // kConfig for an empty pattern, one of only slashes, an unclosed class, an unknown POSIX class or
  // a final backslash.
  [[nodiscard]] static Result<Glob> parse(std::string_view pattern);

  // Whether `path` (relative, without a leading slash) matches. Cost: O(path x pattern) steps.
  bool matches(std::string_view path, IsDirectory is_directory) const;

  // The pattern as it was given.
  const std::string& text() const { return text_; }

 private:
  struct Token {
    enum class Kind { kByte, kAnyByte, kStar, kDoubleStar, kClass } kind = Kind::kByte;
    unsigned char byte = 0;
    std::vector<bool> members;  // kClass: 256 bits.
  };

  bool matches_here(std::string_view text) const;
  static bool step(const Token& token, unsigned char byte);
  // Reads a class of which `pattern[i]` is the '['; leaves `i` at its ']'. Else says what is wrong.
  static const char* parse_class(std::string_view pattern, size_t& i, Token& token);

  std::string text_;
  std::vector<Token> tokens_;
  bool anchored_ = false;          // Began with '/'.
  bool directories_only_ = false;  // Ended with '/'.
  bool has_inner_slash_ = false;
};

}  // namespace superlifter
