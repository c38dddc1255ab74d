// Answers that need no file of a module: the module list, directory nodes, digests.
#pragma once

#include <cstdint>
#include <expected>

#include "core/base/bytes.h"
#include "core/base/outbox.h"
#include "core/session/answer.h"
#include "core/session/store.h"
#include "core/wire/message.h"

namespace superlifter::session {

// MODULES and TREE: one run of bytes, made here or lying in the generation's own file, which goes
// out frame by frame.
class BlobAnswer {
 public:
  static BlobAnswer of_modules(Store& store);
  // All nodes, or the listed ones. kNotFound when one is not the generation's; kInternal when the
  // generation has no stream of all.
  static std::expected<BlobAnswer, wire::Code> of_tree(const Generation& generation,
                                                       const wire::TreeRequest& tree);

  // True when all of it is in the outbox.
  bool advance(uint32_t request, Outbox& outbox);

 private:
  explicit BlobAnswer(wire::Type type) : type_(type) {}

  wire::Type type_;
  Bytes made_;
  size_t made_sent_ = 0;
  FileRange range_;  // range_.file set: this is sent, not made_.
};

// DIGESTS: frames are cut from the generation's arrays as the outbox has room.
class DigestsAnswer {
 public:
  // kNotFound when a range ends beyond the last entry.
  static std::expected<DigestsAnswer, wire::Code> of(AnswerContext context,
                                                     wire::DigestsRequest digests);

  // True when all of it is in the outbox.
  bool advance(Outbox& outbox);

 private:
  DigestsAnswer(AnswerContext context, wire::DigestsRequest digests)
      : context_(std::move(context)), digests_(std::move(digests)) {}

  AnswerContext context_;
  wire::DigestsRequest digests_;
  size_t range_ = 0;  // Of digests_.ranges: the one we are in, and its entries that are done.
  uint32_t range_done_ = 0;
};

}  // namespace superlifter::session
