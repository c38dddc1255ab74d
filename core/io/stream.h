// ByteStream: an in-fd and an out-fd. TCP is the case where they are one.
#pragma once

#include "core/base/unique_fd.h"

namespace superlifter::io {

struct ByteStream {
  UniqueFd in;
  UniqueFd out;  // Not valid: `in` serves both ways.

  int in_fd() const { return in.get(); }
  int out_fd() const { return out.valid() ? out.get() : in.get(); }
};

}  // namespace superlifter::io
