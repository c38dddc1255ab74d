// A directory node: refused, or encoded again to the same bytes (there is one encoding of a node),
// and a tree of nodes that all are this one ends at the bound.
#include <algorithm>
#include <variant>

#include "core/base/check.h"
#include "core/tree/node.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace superlifter;  // NOLINT(google-build-using-namespace)
  const ByteView bytes(data, size);
  const auto node = tree::decode_node(bytes);
  if (!node) return 0;
  Bytes again;
  if (const auto* leaf = std::get_if<tree::LeafNode>(&*node)) {
    tree::encode_leaf(*leaf, again);
  } else {
    tree::encode_index(std::get<tree::IndexNode>(*node), again);
  }
  CHECK(std::equal(again.begin(), again.end(), bytes.begin(), bytes.end()));
  const auto table =
      tree::expand({}, {}, [&](const hash::Sha256&) { return bytes; }, {.entries = 2000});
  if (table) CHECK(table->view().validate().has_value());
  return 0;
}
