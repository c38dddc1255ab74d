// The one door to served and pulled trees: every open happens below a held root fd, by openat2(2)
// with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and RESOLVE_NO_MAGICLINKS; mount points are crossed,
// since a module may span several. A symlink anywhere in a path is ELOOP, an escape is EXDEV;
// nothing falls back to a plain open, and where the call is missing (before Linux 5.6) everything
// fails closed.
#pragma once

#include <sys/stat.h>

#include <string>

#include "core/base/file_request.h"
#include "core/base/rel_path.h"
#include "core/base/result.h"
#include "core/base/unique_fd.h"

namespace superlifter::fs {

// Opens a root directory by an absolute or relative path from the administrator (symlinks are
// followed here and only here). kNotFound, kIo; a message that names the path.
[[nodiscard]] Result<UniqueFd> open_root(const std::string& path);

// The request to open a regular file for reading, as data for an engine. O_NONBLOCK and O_NOCTTY
// keep a fifo or a device that took the file's place from blocking; O_NOATIME is not set (it needs
// ownership).
OpenRequest read_request(int root_fd, const RelPath& path);

// Runs a request now. kNotFound for ENOENT, ENOTDIR and ELOOP, else kIo; sys_errno tells which.
[[nodiscard]] Result<UniqueFd> open(const OpenRequest& request);

// Opens a directory beneath the root, O_DIRECTORY | O_CLOEXEC. The empty path opens the root anew.
[[nodiscard]] Result<UniqueFd> open_directory(int root_fd, const RelPath& path);
// The request for it, for a caller that adds flags.
OpenRequest directory_request(int root_fd, const RelPath& path);
// The same for one name below a directory fd; kProtocol for what is not a name.
[[nodiscard]] Result<UniqueFd> open_directory_at(int directory_fd, const std::string& name);

// A stat as validators.
Validators to_validators(const struct stat& stat);

}  // namespace superlifter::fs
