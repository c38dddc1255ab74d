// File work: runs one FileRequest with plain system calls. May block on a disk, so an engine calls
// it from its pool, never from the loop. The open itself is data that fs/beneath made: nothing here
// builds a path or chooses flags.
#pragma once

#include "core/base/file_request.h"

namespace superlifter::io {

// Runs the request and answers it; any thread, no shared state. Cost: kReadSmall four system calls
// and one allocation, kOpen two, kRecheck one.
//
// kReadSmall takes its validators after the read, so that bytes which changed while they were read
// never carry the stamps of before. What is not a regular file is answered with is_regular == false
// and no data, whatever else went wrong with it.
FileReply run_file_request(const FileRequest& request);

}  // namespace superlifter::io
