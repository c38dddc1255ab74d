#include "core/base/rel_path.h"

#include "core/base/escape.h"
#include "core/base/limits.h"

namespace superlifter {

bool is_valid_name(std::string_view name) {
  if (name.empty() || name.size() > kMaxNameBytes) return false;
  if (name == "." || name == "..") return false;
  return name.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos;
}

Result<RelPath> RelPath::parse(std::string_view text) {
  if (text.size() > kMaxPathBytes) {
    return fail(Errc::kLimit,
                "path is longer than 4,095 bytes: " + escape(text.substr(0, 64)) + "…");
  }
  std::string_view rest = text;
  while (!rest.empty()) {
    const size_t slash = rest.find('/');
    const std::string_view name = rest.substr(0, slash);
    const bool ends_with_slash = slash != std::string_view::npos && slash + 1 == rest.size();
    if (!is_valid_name(name) || ends_with_slash) {
      return fail(Errc::kProtocol, "not a plain relative path: " + escape(text));
    }
    rest = slash == std::string_view::npos ? std::string_view() : rest.substr(slash + 1);
  }
  return RelPath(std::string(text));
}

Result<RelPath> RelPath::child(std::string_view name) const {
  if (!is_valid_name(name)) return fail(Errc::kProtocol, "not a file name: " + escape(name));
  std::string joined = text_;
  if (!joined.empty()) joined += '/';
  joined += name;
  if (joined.size() > kMaxPathBytes) {
    return fail(Errc::kLimit, "path is longer than 4,095 bytes: " + escape(joined));
  }
  return RelPath(std::move(joined));
}

RelPath RelPath::parent() const {
  const size_t slash = text_.rfind('/');
  return RelPath(slash == std::string::npos ? std::string() : text_.substr(0, slash));
}

std::string_view RelPath::name() const {
  const size_t slash = text_.rfind('/');
  return std::string_view(text_).substr(slash == std::string::npos ? 0 : slash + 1);
}

}  // namespace superlifter
