// Interpret: a Document to a Config, by the schema.
//
// Maps that are still to be read wait in a queue; there is no recursion, and nothing is looked at
// that the schema does not lead to, so hostile nesting has nothing to work on.
#pragma once

#include "config/document.h"
#include "config/loader.h"

namespace superlifter::config {

// Adds what is wrong to `mistakes`; the Config means something only if that stays empty. Looks at
// the file system only for CheckPaths::kYes.
Config interpret(const Document& document, CheckPaths check_paths, Mistakes& mistakes);

}  // namespace superlifter::config
