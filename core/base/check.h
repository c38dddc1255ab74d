// CHECK(condition): a promise of our own code. On in release builds too: a worker that broke its
// own invariant must die (the master starts another) rather than serve wrong bytes. Never for
// anything that a peer, a disk or an administrator can cause.
#pragma once

#include <cstdio>
#include <cstdlib>

#define CHECK(condition)                                                                      \
  do {                                                                                        \
    if (!(condition)) [[unlikely]] {                                                          \
      static_cast<void>(                                                                      \
          std::fprintf(stderr, "%s:%d: CHECK failed: %s\n", __FILE__, __LINE__, #condition)); \
      std::abort();                                                                           \
    }                                                                                         \
  } while (false)
