// A file's signature as a pack keeps it: all levels, side by side.
#pragma once

#include <algorithm>
#include <span>
#include <string_view>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/delta/signature.h"

namespace superlifter::tests {

inline Bytes kept_signature(std::string_view content, const delta::SignatureLayout& layout) {
  Bytes out(layout.size_bytes());
  delta::SignatureBuilder builder;
  builder.begin(
      layout, [&](unsigned level, uint64_t first, std::span<const delta::BlockSum> sums) -> Status {
        Bytes bytes;
        delta::append_sums(sums, delta::kMostWidth, bytes);
        const uint64_t at = layout.offset_of(level, first);
        CHECK(at + bytes.size() <= out.size());
        std::copy(bytes.begin(), bytes.end(), out.begin() + static_cast<ptrdiff_t>(at));
        return {};
      });
  CHECK(builder.update(as_bytes(content)));
  CHECK(builder.finish());
  return out;
}

}  // namespace superlifter::tests
