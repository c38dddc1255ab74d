// Value: the text of one setting to its field and back, by the kind and the bounds that the schema
// gives it. Knows nothing of YAML and positions.
#pragma once

#include <string>
#include <string_view>

#include "config/schema.h"

namespace superlifter::config {

// Writes `text` to `field`, of a list as one more item. kConfig where it is not what the key takes:
// the message is "expected ...", as expectation() has it, with the reason where that says more.
// REQUIRES: `field` is what key.field returned; the key is neither a section nor kModules.
[[nodiscard]] Status set_value(const Key& key, std::string_view text, const Field& field);

// What the key takes, of a list what one item is: "a duration from 1s to 1h, such as 10s".
std::string expectation(const Key& key);

// A text that set_value would take and that `text` was probably meant to be ("60" for a duration:
// "60s");
// "" when there is none.
std::string suggest_value(const Key& key, std::string_view text);

// The parts of key.words.
std::vector<std::string_view> split_words(std::string_view words);

}  // namespace superlifter::config
