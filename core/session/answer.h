// What the answers to a session's requests share: the way to the engine, the counters, and frames
// into the outbox.
//
// An answer is made when its request's turn has come and lives until the last frame is in the
// outbox. It is driven like the session: advance(outbox) puts output in until the outbox is at its
// mark or something must come first; on_file takes an answer of the engine.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "core/base/bytes.h"
#include "core/base/file_request.h"
#include "core/base/outbox.h"
#include "core/base/result.h"
#include "core/session/store.h"
#include "core/wire/message.h"

namespace superlifter::session {

// Plain counters; the driver adds them to the metrics.
struct Counters {
  uint64_t bytes_received = 0;
  uint64_t bytes_hello = 0;  // Put into the outbox, by kind, framing included; they add up to all.
  uint64_t bytes_manifest = 0;   // Module lists, nodes, digests.
  uint64_t bytes_data = 0;       // DATA and ITEM, packed or not.
  uint64_t bytes_signature = 0;  // SUMS.
  uint64_t bytes_other = 0;      // Errors, pongs, goodbyes.
  uint64_t bytes_on_demand = 0;  // Content that sums were made of; at most kOnDemandBytes.
  uint64_t requests = 0;
  uint64_t files_sent = 0;  // Opened and sent from, wholly or in ranges.
  uint64_t files_stale = 0;
};

// File work on its way to the engine.
class FileQueue {
 public:
  // Returns the id that the reply will carry; never 0, ascending.
  uint64_t ask(FileRequest request) {
    request.id = next_id_;
    requests_.push_back(std::move(request));
    return next_id_++;
  }
  std::vector<FileRequest> take() { return std::exchange(requests_, {}); }

 private:
  std::vector<FileRequest> requests_;
  uint64_t next_id_ = 1;
};

// Who asked, about what, and what an answer works with; all of it outlives the answer.
struct AnswerContext {
  uint32_t request = 0;
  std::shared_ptr<const Generation> generation;
  FileQueue& files;
  Counters& counters;
};

// What the peer is told of a store's failure.
wire::Code to_code(const Error& error);

// Puts a whole frame into the outbox. REQUIRES: at most kMaxReplyPayload.
void push_frame(wire::Type type, uint8_t flags, uint32_t request, Bytes payload, Outbox& outbox);
void push_error(wire::Code code, uint64_t argument, uint32_t request, Outbox& outbox);

}  // namespace superlifter::session
