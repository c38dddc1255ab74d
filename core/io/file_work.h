// File work: runs one FileRequest with plain system calls. What may wait for a disk an engine calls
// from its pool, never from the loop; what is in the kernel's caches can be had at once. The open
// itself is data that fs/beneath made: nothing here builds a path, or flags beyond "do not wait".
#pragma once

#include <optional>

#include "core/base/file_request.h"

namespace superlifter::io {

// Runs the request and answers it; any thread, no shared state. Cost: kReadSmall three system
// calls, one more a range, and one allocation; kReadOpen two less; kOpen two; kRecheck one.
//
// What is read comes range after range, of each the bytes there were. kReadSmall and kReadOpen take
// their validators after the last read, so that bytes which changed while they were read never
// carry the stamps of before. What is not a regular file is answered with is_regular == false and
// no data, whatever else went wrong with it.
// REQUIRES: the bounds of FileRequest::ranges; a file where the kind needs one.
FileReply run_file_request(const FileRequest& request);

// The same if it can be done without waiting (RESOLVE_CACHED, RWF_NOWAIT); else nothing, and
// nothing has been done. A mirror serves most files from the page cache: then this is a third of
// the CPU that a hand-over to another thread and back costs.
std::optional<FileReply> try_file_request(const FileRequest& request);

}  // namespace superlifter::io
