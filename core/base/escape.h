// escape: bytes from a peer or a disk, made fit for a log line or a terminal. Printable ASCII and
// well-formed UTF-8 stay; control bytes, DEL, backslash, the C1 controls and anything malformed
// become
// \xNN. Injective, so that two different names never print alike.
#pragma once

#include <string>
#include <string_view>

namespace superlifter {

std::string escape(std::string_view bytes);

}  // namespace superlifter
