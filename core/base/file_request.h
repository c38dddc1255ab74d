// Files as plain data: what the session asks for and what an engine answers.
//
// The session may not touch a file descriptor and an engine may not know what a module is. They
// meet here: fs/beneath makes an OpenRequest (the only maker), the session puts it into a
// FileRequest, the engine runs it (openat2, fstat, and for short ranges read and close in one go)
// and hands back a FileReply.
#pragma once

#include <linux/openat2.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/base/bytes.h"
#include "core/base/unique_fd.h"

namespace superlifter {

// Arguments of one openat2(2). The root fd is borrowed: its module outlives every request.
struct OpenRequest {
  int root_fd = -1;
  std::string path;  // Relative, validated (RelPath), without NUL.
  open_how how{};
};

// What tells one version of a file from another.
struct Validators {
  uint64_t inode = 0;
  uint64_t size_bytes = 0;
  int64_t mtime_s = 0;
  int64_t ctime_s = 0;
  uint32_t mtime_ns = 0;
  uint32_t ctime_ns = 0;

  friend bool operator==(const Validators&, const Validators&) = default;
};

// An open served file. Shared by the session (until its item ends) and by the outbox items that
// read from it. The sender sets `shrunk` when the file ended before a promised range did (the gap
// was sent as zeros); engine and session run on one thread or hand over by completion, so a relaxed
// atomic is enough.
struct OpenFile {
  UniqueFd fd;
  std::atomic<bool> shrunk = false;
};

struct FileRequest {
  enum class Kind : uint8_t {
    kReadSmall,  // open, read all of the ranges into memory, fstat, close
    kOpen,       // open, fstat, keep open
    kReadOpen,   // read all of the ranges of an open file into memory, fstat
    kRecheck,    // fstat of an open file
  };

  // [offset, offset + length_bytes) of the file.
  struct Range {
    uint64_t offset = 0;
    uint32_t length_bytes = 0;
  };

  uint64_t id = 0;  // Chosen by the session, ascending; comes back in the reply.
  Kind kind = Kind::kReadSmall;
  OpenRequest open;                // kReadSmall, kOpen
  std::shared_ptr<OpenFile> file;  // kReadOpen, kRecheck
  // kReadSmall, kReadOpen: at most kMaxRangesTogether, and kSmallFileBytes in all.
  std::vector<Range> ranges;
};

struct FileReply {
  uint64_t id = 0;
  int sys_errno = 0;  // 0, or why the request failed; then nothing below is set.
  bool is_regular = false;
  Validators validators;  // As of the fstat (kReadSmall: taken after the read).
  Bytes data;             // kReadSmall, kReadOpen: the bytes there were, range after range.
  std::shared_ptr<OpenFile> file;  // kOpen
};

}  // namespace superlifter
