// as_nobody: runs a part of a test without root's rights, which would hide what a mode forbids.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "core/base/check.h"

namespace superlifter::tests {

constexpr uid_t kNobody = 65534;

// Runs `part` in a child process, as nobody when this one is root. True when it returned true.
inline bool as_nobody(const std::function<bool()>& part) {
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    const bool ready = geteuid() != 0 || (setgid(kNobody) == 0 && setuid(kNobody) == 0);
    _exit(ready && part() ? 0 : 1);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace superlifter::tests
