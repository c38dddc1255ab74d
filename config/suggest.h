// Suggest: the known word that a mistyped one was most likely meant to be.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace superlifter::config {

// The member of `known` nearest to `text`, case aside, by the number of letters inserted, dropped,
// replaced or swapped with their neighbour (optimal string alignment); "" when none is near enough
// to be worth saying. A word that holds the other whole counts as near. The first of equals wins.
// Cost: O(|text| x |word|) for each word; texts of more than 64 bytes get no suggestion.
std::string nearest(std::string_view text, const std::vector<std::string_view>& known);

}  // namespace superlifter::config
