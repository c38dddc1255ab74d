// Digests: the XXH3-128 of every file that a pull needs one for, from the state of the last pull
// where it knows them, else from the server.
//
// A directory node commits to the digests of its files (tree/node.h). So a file whose content
// changed while its size and time stayed, which no quick check sees, shows: the leaf's commitment
// is not kept by the digests of the last pull. Then all digests of that leaf are asked for, and the
// files that differ are fetched.
#pragma once

#include <cstdint>
#include <span>

#include "client/conversation.h"
#include "client/local_tree.h"
#include "core/base/result.h"
#include "core/catalog/catalog.h"
#include "core/tree/node.h"
#include "core/tree/table.h"

namespace superlifter::client {

struct DigestContext {
  Conversation& conversation;
  const tree::TableView& table;
  std::span<const tree::LeafCommitment> leaves;  // Of the target; empty: the state's own tree.
  uint32_t first_entry = 0;                      // Number in the module of the table's entry 0.
  Comparison& comparison;  // Digests are filled in; files that turn out to differ become kFetch.
  const catalog::Catalog* state = nullptr;
};

// REQUIRES: the generation is not provisional. kCorrupt when the server's own digests do not keep
// its commitments; the conversation's failures.
[[nodiscard]] Status fetch_digests(const DigestContext& context);

}  // namespace superlifter::client
