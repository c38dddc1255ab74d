#include "config/document.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/base/escape.h"
#include "core/base/limits.h"

namespace superlifter::config {
namespace {

constexpr size_t kShownBytes = 64;  // Of a wrong value or key, in an error.

}  // namespace

void Mistakes::add(Position at, std::string text) {
  if (list_.size() < kMaxConfigErrors) {
    list_.push_back({at, std::move(text)});
  } else {
    ++dropped_;
  }
}

std::vector<std::string> Mistakes::lines(const std::string& file) const {
  std::vector<Mistake> sorted = list_;
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const Mistake& a, const Mistake& b) { return a.at < b.at; });
  std::vector<std::string> out;
  for (const Mistake& mistake : sorted) {
    std::string line =
        fmt::format("{}:{}:{}: {}", file, mistake.at.line, mistake.at.column, mistake.text);
    if (out.empty() || out.back() != line) out.push_back(std::move(line));
  }
  if (dropped_ > 0) {
    out.push_back(fmt::format("{}: more than {} errors: expected the first ones to be mended first",
                              file, kMaxConfigErrors));
  }
  return out;
}

std::string clip(std::string_view text) {
  if (text.size() <= kShownBytes) return escape(text);
  return escape(text.substr(0, kShownBytes)) + "...";
}

std::string show(std::string_view text) {
  return "'" + clip(text) + "'";
}

std::string describe(const Value& value) {
  switch (value.type) {
    case Value::Type::kNothing:
      return "empty";
    case Value::Type::kScalar:
      return show(value.text);
    case Value::Type::kList:
      return "a list";
    case Value::Type::kMap:
      return "a map";
  }
  return "";
}

}  // namespace superlifter::config
