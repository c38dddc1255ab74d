// SignatureAnswer: the answer to one SIGNATURE.
//
//   item ──its level is kept──▶ the sums' bytes are read from the signature pack
//     │        └── else, up to kMostOnDemandLevel: the blocks' bytes are read from the file, and
//     │                                            summed here, within kOnDemandBytes of a session
//     └── else NOT_FOUND
//
// Items are answered in order into one run of bytes, which goes out in SUMS frames as it grows:
// each item's status, then its sums. Items that lie in the same file and are short together share
// one request to the engine: of the pack, whatever their entries; of a served file, those of one
// entry. Longer ones are read in chunks.
//
// A status that was said cannot be taken back. Where a file or the pack fails after the first
// chunk, the item's further sums are zero: the client finds no match there, and hears what is the
// matter when it reads the file.
//
// Memory: kLookaheadBytes and kLookaheadFiles of what is ahead, one job more, kMaxOpenFilesAhead
// open files, and a frame. Work of one turn: the sums of what is ahead, half a MiB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "core/base/bytes.h"
#include "core/base/file_request.h"
#include "core/base/outbox.h"
#include "core/session/answer.h"
#include "core/session/file_reader.h"
#include "core/session/store.h"
#include "core/wire/message.h"

namespace superlifter::session {

class SignatureAnswer {
 public:
  SignatureAnswer(AnswerContext context, wire::SignatureRequest request);

  // Puts output into the outbox until it is at its mark or the engine must answer first. True when
  // all is said.
  bool advance(Outbox& outbox);
  // A reply for this answer; others are ignored.
  void on_file(FileReply reply);

 private:
  // A run of items that one request to the engine answers; or one that is read in chunks.
  struct Job {
    bool is_kept = false;  // Sums come from the pack; else they are made of content.
    bool is_large = false;
    uint64_t awaited = 0;  // Id of the request on its way; 0: none.
    wire::Code status = wire::Code::kOk;
    std::vector<uint64_t> lengths;      // Bytes to read for each item.
    uint64_t bytes = 0;                 // Of all items.
    Bytes data;                         // Short.
    uint64_t offset = 0;                // Large, on demand.
    std::unique_ptr<ChunkReader> rest;  // Large, the file being open: what was not answered.
    bool has_begun = false;             // Large: its status was said.
    uint64_t zero_bytes = 0;            // Large, failed since: what the further sums would be of.
    uint32_t entry = 0;                 // On demand.
    Validators expected;
  };

  void look_ahead();
  void add_failed_job(wire::Code status);
  void add_kept_job(const Generation::Signature& signature);
  void add_file_job();
  void begin(Job job, FileRequest ask);
  void ask_chunks();
  bool answer_front();
  bool answer_chunk(Job& job);
  void append_status(wire::Code status);
  void append_sums(const Job& job, ByteView bytes);
  void append_zeros(const Job& job, uint64_t bytes);
  void drop_front();
  void push_sums(uint8_t flags, Outbox& outbox);

  AnswerContext context_;
  const wire::SignatureRequest request_;
  size_t next_ = 0;           // First item that is in no job.
  std::deque<Job> ahead_;     // The front is the next to be answered.
  uint64_t ahead_bytes_ = 0;  // Memory that replies to ahead_ take.
  size_t open_files_ = 0;     // Large jobs in ahead_.
  Bytes payload_;             // Answered, and in no frame yet.
};

}  // namespace superlifter::session
