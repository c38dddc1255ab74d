// Reading served files through the engine: what a reply says about a file, and long ranges in
// chunks.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "core/base/bytes.h"
#include "core/base/file_request.h"
#include "core/session/answer.h"
#include "core/wire/message.h"

namespace superlifter::session {

// What an engine's answer says about an entry's file: kOk, kStale (gone, replaced, changed; fewer
// bytes than `expected_bytes` count as that too), kIo.
wire::Code judge(const FileReply& reply, const Validators& expected, uint64_t expected_bytes);

// judge(), for a reply about a regular file of the generation: a file that is stale is counted and
// its module queued for a rescan. So is one where only ctime differs (a link, a rename, a chmod),
// whose content is served: the digest at the client decides.
wire::Code judge_and_report(const FileReply& reply, const Validators& expected,
                            uint64_t expected_bytes, uint32_t entry, const AnswerContext& context);

// A long range of an open file, read in chunks of kSmallFileBytes, several of them on their way at
// once and taken in order. Each is judged by the fstat that followed its own read, so that chunks
// which all are kOk make up one version of the file.
class ChunkReader {
 public:
  // Whose file it is; without one (a signature pack) the bytes that came are all that is judged.
  struct Entry {
    uint32_t number = 0;
    Validators validators;
  };

  ChunkReader(std::shared_ptr<OpenFile> file, uint64_t offset, uint64_t end,
              std::optional<Entry> entry)
      : file_(std::move(file)), entry_(entry), offset_(offset), end_(end) {}

  // Bytes of the range that were neither taken nor passed over.
  uint64_t left_bytes() const { return end_ - offset_ + ahead_bytes_; }
  // Where they begin.
  uint64_t offset() const { return offset_ - ahead_bytes_; }
  // Bytes asked for and not taken.
  uint64_t ahead_bytes() const { return ahead_bytes_; }
  const std::shared_ptr<OpenFile>& file() const { return file_; }

  // Asks for one more chunk; returns its length, 0 when all were asked for.
  uint32_t ask(FileQueue& files);
  // False when the reply is for something else.
  bool on_file(FileReply& reply, const AnswerContext& context);

  // Whether the first chunk is there. Then its status, and its bytes when that is kOk.
  bool is_ready() const { return !chunks_.empty() && chunks_.front().awaited == 0; }
  struct Chunk {
    uint64_t awaited = 0;  // Id of the request on its way; 0: answered.
    uint32_t length_bytes = 0;
    wire::Code status = wire::Code::kOk;
    Bytes data;
  };
  // REQUIRES: is_ready().
  Chunk take();
  // Passes over bytes that are sent in another way. REQUIRES: nothing is ahead; at most left_bytes.
  void pass(uint64_t bytes) { offset_ += bytes; }

 private:
  std::shared_ptr<OpenFile> file_;
  std::optional<Entry> entry_;
  uint64_t offset_;  // Where the next chunk to be asked for begins.
  uint64_t end_;
  std::deque<Chunk> chunks_;
  uint64_t ahead_bytes_ = 0;  // Of chunks_.
};

}  // namespace superlifter::session
