#include "config/suggest.h"

#include <algorithm>
#include <array>
#include <cstddef>

namespace superlifter::config {
namespace {

constexpr size_t kMaxWordBytes = 64;  // Longer than any key; bounds the cost of hostile text.
constexpr size_t kShortestPartBytes =
    4;  // A shorter part says too little: "on" is in "connections".

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return out;
}

// Distance of two words of at most kMaxWordBytes. Rows of the usual table, three at a time.
size_t distance(std::string_view a, std::string_view b) {
  using Row = std::array<size_t, kMaxWordBytes + 1>;
  Row before{};
  Row last{};
  Row row{};
  for (size_t j = 0; j <= b.size(); ++j)
    last[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({replaced, last[j] + 1, row[j - 1] + 1});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    before = last;
    last = row;
  }
  return last[b.size()];
}

bool holds(std::string_view whole, std::string_view part) {
  return part.size() >= kShortestPartBytes && whole.find(part) != std::string_view::npos;
}

}  // namespace

std::string nearest(std::string_view text, const std::vector<std::string_view>& known) {
  if (text.empty() || text.size() > kMaxWordBytes) return "";
  const std::string typed = lower(text);
  std::string_view best;
  size_t best_distance = kMaxWordBytes + 1;
  for (const std::string_view word : known) {
    if (word.empty() || word.size() > kMaxWordBytes) continue;
    const std::string meant = lower(word);
    const size_t away = distance(typed, meant);
    // A third of the letters may be wrong; more, and any word would do.
    const bool near = away <= std::max<size_t>(1, std::max(typed.size(), meant.size()) / 3) ||
                      holds(typed, meant) || holds(meant, typed);
    // Everything is one letter away from a one-letter word.
    const bool shares_nothing = away >= std::max(typed.size(), meant.size());
    if (near && !shares_nothing && away < best_distance) {
      best = word;
      best_distance = away;
    }
  }
  return std::string(best);
}

}  // namespace superlifter::config
