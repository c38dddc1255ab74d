#include "core/base/glob.h"

#include "core/base/escape.h"

namespace superlifter {
namespace {

// In ASCII, whatever the locale: patterns mean the same everywhere.
bool is_in_posix_class(std::string_view name, unsigned char c) {
  const bool digit = c >= '0' && c <= '9';
  const bool lower = c >= 'a' && c <= 'z';
  const bool upper = c >= 'A' && c <= 'Z';
  const bool graph = c > 0x20 && c < 0x7F;
  if (name == "alnum") return digit || lower || upper;
  if (name == "alpha") return lower || upper;
  if (name == "blank") return c == ' ' || c == '\t';
  if (name == "cntrl") return c < 0x20 || c == 0x7F;
  if (name == "digit") return digit;
  if (name == "graph") return graph;
  if (name == "lower") return lower;
  if (name == "print") return graph || c == ' ';
  if (name == "punct") return graph && !digit && !lower && !upper;
  if (name == "space") return c == ' ' || (c >= '\t' && c <= '\r');
  if (name == "upper") return upper;
  if (name == "xdigit") return digit || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
  return false;
}

// False when there is no class of that name.
bool add_posix_class(std::string_view name, std::vector<bool>& members) {
  bool any = false;  // No class is empty.
  for (unsigned c = 0; c < 256; ++c) {
    if (!is_in_posix_class(name, static_cast<unsigned char>(c))) continue;
    members[c] = any = true;
  }
  return any;
}

}  // namespace

Result<Glob> Glob::parse(std::string_view pattern) {
  Glob glob;
  glob.text_ = pattern;
  const auto bad = [&](const char* why) {
    return fail(Errc::kConfig, "pattern '" + escape(glob.text_) + "': " + why);
  };
  if (pattern.starts_with('/')) {
    glob.anchored_ = true;
    pattern.remove_prefix(1);
  }
  if (pattern.ends_with('/')) {
    glob.directories_only_ = true;
    pattern.remove_suffix(1);
  }
  if (pattern.find_first_not_of('/') == std::string_view::npos) return bad("names nothing");
  for (size_t i = 0; i < pattern.size(); ++i) {
    Token token;
    token.byte = static_cast<unsigned char>(pattern[i]);
    switch (pattern[i]) {
      case '*':
        token.kind = Token::Kind::kStar;
        while (i + 1 < pattern.size() && pattern[i + 1] == '*') {
          token.kind = Token::Kind::kDoubleStar;
          ++i;
        }
        break;
      case '?':
        token.kind = Token::Kind::kAnyByte;
        break;
      case '\\':
        if (++i == pattern.size()) return bad("ends in a backslash that escapes nothing");
        token.byte = static_cast<unsigned char>(pattern[i]);
        break;
      case '[':
        if (const char* why = parse_class(pattern, i, token)) return bad(why);
        break;
      case '/':
        glob.has_inner_slash_ = true;
        break;
      default:
        break;
    }
    if (token.kind == Token::Kind::kDoubleStar) glob.has_inner_slash_ = true;
    glob.tokens_.push_back(std::move(token));
  }
  return glob;
}

const char* Glob::parse_class(std::string_view pattern, size_t& i, Token& token) {
  token.kind = Token::Kind::kClass;
  token.members.assign(256, false);
  ++i;
  const bool negated = i < pattern.size() && (pattern[i] == '!' || pattern[i] == '^');
  if (negated) ++i;
  bool closed = false;
  for (const size_t first = i; i < pattern.size(); ++i) {
    if (pattern[i] == ']' && i > first) {
      closed = true;
      break;
    }
    if (pattern.substr(i).starts_with("[:")) {
      const size_t end = pattern.find(":]", i + 2);
      // Without its end it is an ordinary '['.
      if (end != std::string_view::npos) {
        if (!add_posix_class(pattern.substr(i + 2, end - i - 2), token.members)) {
          return "has an unknown [:class:]";
        }
        i = end + 1;
        continue;
      }
    }
    if (pattern[i] == '\\' && i + 1 < pattern.size()) ++i;
    const auto low = static_cast<unsigned char>(pattern[i]);
    unsigned char high = low;
    if (i + 2 < pattern.size() && pattern[i + 1] == '-' && pattern[i + 2] != ']') {
      i += 2;
      if (pattern[i] == '\\' && i + 1 < pattern.size()) ++i;
      high = static_cast<unsigned char>(pattern[i]);
    }
    for (unsigned c = low; c <= high; ++c) {
      token.members[c] = true;
    }
  }
  if (!closed) return "has a '[' without its ']'";
  if (negated) token.members.flip();
  token.members[static_cast<unsigned char>('/')] = false;
  return nullptr;
}

bool Glob::matches(std::string_view path, IsDirectory is_directory) const {
  if (directories_only_ && is_directory == IsDirectory::kNo) return false;
  if (anchored_) return matches_here(path);
  if (!has_inner_slash_) return matches_here(path.substr(path.rfind('/') + 1));
  // Not anchored, with a slash or "**" inside: try at each name.
  for (size_t at = 0;; ++at) {
    if (matches_here(path.substr(at))) return true;
    at = path.find('/', at);
    if (at == std::string_view::npos) return false;
  }
}

bool Glob::step(const Token& token, unsigned char byte) {
  switch (token.kind) {
    case Token::Kind::kByte:
      return byte == token.byte;
    case Token::Kind::kAnyByte:
    case Token::Kind::kStar:
      return byte != '/';
    case Token::Kind::kDoubleStar:
      return true;
    case Token::Kind::kClass:
      return token.members[byte];
  }
  return false;
}

// The set of pattern positions that the text so far can have reached (Thompson's simulation): no
// backtracking, so a hostile pattern or name cannot cost more than pattern x text steps.
bool Glob::matches_here(std::string_view text) const {
  const auto is_star = [&](size_t i) {
    return tokens_[i].kind == Token::Kind::kStar || tokens_[i].kind == Token::Kind::kDoubleStar;
  };
  // Two sets a call, not one a byte: filters run over every entry of a tree.
  std::vector<bool> now(tokens_.size() + 1, false);
  std::vector<bool> next(tokens_.size() + 1, false);
  const auto reach = [&](std::vector<bool>& set, size_t i) {
    set[i] = true;
    while (i < tokens_.size() && is_star(i)) {
      set[++i] = true;
    }
  };
  reach(now, 0);
  for (const char c : text) {
    bool alive = false;
    next.assign(tokens_.size() + 1, false);
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (!now[i] || !step(tokens_[i], static_cast<unsigned char>(c))) continue;
      reach(next, is_star(i) ? i : i + 1);
      alive = true;
    }
    if (!alive) return false;
    now.swap(next);
  }
  return now[tokens_.size()];
}

}  // namespace superlifter
