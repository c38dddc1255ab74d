// ReadAnswer: the answer to one READ.
//
//   items:   0 1 1 1 2 3 4 5 6 …      (entries)
//            └┬┘ └─┬─┘ └──┬──┘ └─ not asked for yet (next_)
//             │    │      └ ahead: jobs that were asked of the engine; answers come in any order
//             │    └ one job: items of one entry that are small together share an open
//             └ sent; of those, `unchecked` wait for their last byte to leave, then for a recheck
//
//   job     kSmall ──bytes──▶ sent
//           kLarge ──open──▶ in the outbox as ranges of the file ──last byte has left──▶ recheck
//                       └──▶ where packing is worth a try: read in chunks, packed
//
// When an item is known to be what the generation says: bytes that went through memory carry the
// validators of an fstat after their read; of bytes that left as ranges the file is looked at once
// more when the last of them has left.
//
// Memory: kLookaheadBytes and kLookaheadFiles of what is ahead, and one job more; with packing
// kPackBytes that are held and as much of a large item; kMaxOpenFilesAhead open files.
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
#include "core/session/packer.h"
#include "core/wire/message.h"

namespace superlifter::session {

class ReadAnswer {
 public:
  // `packer` is borrowed; null: nothing is packed, whatever the request allows.
  ReadAnswer(AnswerContext context, wire::ReadRequest request, Packer* packer);

  // Puts output into the outbox until it is at its mark or the engine must answer first. True when
  // all is said.
  bool advance(Outbox& outbox);
  // A reply for this answer; others are ignored.
  void on_file(FileReply reply);

 private:
  // Items [first_index, first_index + lengths.size()) of one entry.
  struct Job {
    uint32_t entry = 0;
    uint32_t first_index = 0;
    bool is_large = false;
    uint64_t awaited = 0;  // Id of the request on its way; 0: none.
    wire::Code status = wire::Code::kOk;
    Validators expected;
    std::vector<uint64_t> lengths;      // Bytes of each item.
    uint64_t bytes = 0;                 // Of all items.
    Bytes data;                         // Small.
    uint64_t offset = 0;                // Large.
    std::unique_ptr<ChunkReader> rest;  // Large, open: what was not sent.
    bool has_ranges = false;            // Large: bytes left as ranges, so it must be checked again.
    bool has_begun = false;             // Large: something of it is in the outbox.
    uint64_t sent_position = 0;         // Large: outbox position after its last range.
    bool is_checked = false;            // Large, in unchecked_.
  };

  void look_ahead();
  void add_job();
  void ask_chunks();
  void recheck(Outbox& outbox);
  void on_open(Job& job, FileReply& reply);
  bool send_front(Outbox& outbox);
  void send_small(Job& job, Outbox& outbox);
  bool send_chunk(Job& job, Outbox& outbox);
  bool send_range(Job& job, Outbox& outbox);
  void drop_front();

  AnswerContext context_;
  const std::vector<wire::ReadItem> items_;
  PackedRun run_;
  size_t next_ = 0;        // First of items_ that is in no job.
  std::deque<Job> ahead_;  // The front is the next to be sent.
  std::deque<Job> unchecked_;
  uint64_t ahead_bytes_ = 0;  // Memory that replies to ahead_ take.
  size_t open_files_ = 0;     // Large jobs in ahead_ and unchecked_.
};

}  // namespace superlifter::session
