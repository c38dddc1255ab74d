// walk: a whole tree in preorder, names of each directory in bytewise order, through held directory
// fds. The order is that of tree::Table, so a consumer builds its table as it goes.
//
// No path is ever resolved twice: a directory is opened below the fd of its parent, its entries are
// stat'd below its own. What changes underneath is met as it comes: a name that vanished is passed
// over in silence, one that changed its kind is looked at anew. A stack of frames takes the place
// of recursion; a frame holds the names of its directory and, for the deepest few, its fd.
//
//   frames:  /  ──▶  pool (names, next)  ──▶  pool/main (names, next)  ──▶ …
//            closed when deeper than max_open_directories; opened again from the root on return
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

namespace superlifter::fs {

// The names in one directory, without "." and "..", sorted bytewise, each once.
class DirectoryNames {
 public:
  struct Name {
    uint64_t offset = 0;  // Into text_.
    uint16_t size_bytes = 0;
    uint8_t type = 0;  // DT_*; DT_UNKNOWN where the file system does not tell.
  };

  size_t count() const { return names_.size(); }
  std::string_view name(size_t index) const {
    return std::string_view(text_).substr(names_[index].offset, names_[index].size_bytes);
  }
  uint8_t type(size_t index) const { return names_[index].type; }

 private:
  std::string text_;
  std::vector<Name> names_;

  friend Result<DirectoryNames> list_directory(int directory_fd);
};

// Reads a directory from where its fd stands (the start, for a fresh one) to its end. kIo,
// kNotFound. Cost: one getdents64 for each 256 KiB, and about 16 bytes beside each name.
[[nodiscard]] Result<DirectoryNames> list_directory(int directory_fd);

// What a handler sees; all of it borrowed for the call.
struct WalkEntry {
  std::string_view path;  // From the root, without a leading slash; empty for the root.
  const char* name = "";  // Last part of the path.
  size_t depth = 0;       // 0: the root; 1: what lies in it.
  int parent_fd = -1;     // Directory that holds the name; for the root, the root itself.
  const struct stat* stat = nullptr;  // Of the name itself (lstat).
  std::string_view target;            // Of a symlink; only in WalkHandlers::entry.
};

enum class Verdict { kTake, kSkip, kStop };

struct WalkHandlers {
  // Asked once for each name but the root, before anything below it is touched. kSkip leaves the
  // name and all beneath it out; kStop ends the walk. May be empty. (A name whose kind changed
  // under the walk is asked about again.)
  std::function<Verdict(const WalkEntry&)> filter;
  // Takes directories (after they were opened and listed), regular files and symlinks, in preorder.
  // An error ends the walk.
  std::function<Status(const WalkEntry&)> entry;
  // Told what is left out and why: kIo or kNotFound (cannot be read), kUnsupported (socket, fifo or
  // device), kLimit (path or target over 4,095 bytes), kStale (changed too often). May be empty.
  std::function<void(std::string_view path, const Error& why)> left_out;
};

struct WalkOptions {
  size_t max_open_directories =
      256;  // At least 1; further ancestors are opened again on the way back.
};

// Walks everything below root_fd (borrowed), the root first. Ok at the end; kClosed after kStop;
// the handler's error; kIo or kNotFound when the root itself cannot be read, or when this process
// has run out of fds or memory (then nothing that is missing would mean anything). Cost: one
// fstatat a name; open, fstat, getdents64 twice and close a directory.
[[nodiscard]] Status walk(int root_fd, const WalkHandlers& handlers,
                          const WalkOptions& options = {});

}  // namespace superlifter::fs
