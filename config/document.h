// Document: what stands in a configuration file, before anybody asks what it means; and the
// mistakes found in it. Plain data between the two halves of the loader: loader.cc knows YAML and
// no keys, interpret.cc knows keys and no YAML.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace superlifter::config {

// 1-based; columns count bytes.
struct Position {
  int line = 1;
  int column = 1;
  friend auto operator<=>(const Position&, const Position&) = default;
};

struct Value {
  enum class Type : uint8_t { kNothing, kScalar, kList, kMap } type = Type::kNothing;
  Position at = {};
  std::string text = {};  // Of a scalar.
  size_t end = 0;         // Index after the last value inside it.
};

// All values in preorder, so that the inside of values[i] is [i + 1, values[i].end): of a list its
// items, of a map its keys and values by turns. A syntax error can leave a last key without its
// value.
struct Document {
  std::vector<Value> values = {};  // Empty, or a tree whose root is values[0].
  bool complete = false;           // Not when a syntax error cut it off.
};

struct Mistake {
  Position at;
  std::string text;  // "what was found: expected ...", fit for a terminal.
};

// The mistakes of one run: at most kMaxConfigErrors are kept.
class Mistakes {
 public:
  void add(Position at, std::string text);

  // Whether no further one would be kept: time to stop looking.
  bool full() const { return dropped_ > 0; }

  // "file:line:col: text" of each, in the order of the file, and a last line if some were not kept.
  // What several aliases make wrong in the same words is there once.
  std::vector<std::string> lines(const std::string& file) const;

 private:
  std::vector<Mistake> list_;
  size_t dropped_ = 0;
};

// Text of the file for a message: escaped, and cut to a length that a line can bear; show() adds
// quotes.
std::string clip(std::string_view text);
std::string show(std::string_view text);

// The text of a scalar, quoted; of others, what it is: "a map".
std::string describe(const Value& value);

}  // namespace superlifter::config
