// Inheritance: exactly what a child gets from the master across fork and exec. Everything else in
// the master is close-on-exec, so nothing of its loop, its sockets or its maps survives by
// accident.
//
//   fd 0, 1   /dev/null
//   fd 2      the log
//   fd 3      control socket (control.h)
//   fd 4      shared segment (core/shm/segment.h), a sealed memfd
//   fd 5      snapshot of the settings (settings.h), a memfd, read by position: all children share
//   it fd 6…     listening sockets (workers only), as many as --child-listen says
//
// The command line carries the rest: --child worker --child-index 2 --child-listen 1.
#pragma once

#include <string>
#include <vector>

#include "core/base/bytes.h"
#include "core/base/result.h"
#include "core/base/unique_fd.h"
#include "core/shm/segment.h"
#include "daemon/options.h"
#include "daemon/settings.h"

namespace superlifter::daemon {

constexpr int kControlFd = 3;
constexpr int kSegmentFd = 4;
constexpr int kSettingsFd = 5;
constexpr int kFirstListenFd = 6;
constexpr uint32_t kMaxListenSockets = 64;

struct Inheritance {
  ChildOptions child;
  UniqueFd control;
  shm::Segment segment;
  Settings settings;
  std::vector<UniqueFd> listen;
};

// A memfd that holds the snapshot. Called by the master.
[[nodiscard]] Result<UniqueFd> make_settings_fd(ByteView snapshot);

// The arguments of a child, without the program's name.
std::vector<std::string> child_arguments(const ChildOptions& child);

// Takes over what the master handed down, and asks the kernel to kill this process when the master
// dies. kCorrupt, kIo, kConfig. Called once, first thing in a child.
[[nodiscard]] Result<Inheritance> receive_inheritance(const ChildOptions& child);

}  // namespace superlifter::daemon
