// See file_reader.h.
#include "core/session/file_reader.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "core/base/check.h"
#include "core/base/limits.h"

namespace superlifter::session {

using wire::Code;

namespace {

Validators without_ctime(Validators validators) {
  validators.ctime_s = 0;
  validators.ctime_ns = 0;
  return validators;
}

}  // namespace

Code judge(const FileReply& reply, const Validators& expected, uint64_t expected_bytes) {
  const bool is_gone =
      reply.sys_errno == ENOENT || reply.sys_errno == ENOTDIR || reply.sys_errno == ELOOP;
  if (reply.sys_errno != 0) return is_gone ? Code::kStale : Code::kIo;
  const bool same = reply.is_regular && without_ctime(reply.validators) == without_ctime(expected);
  return same && reply.data.size() == expected_bytes ? Code::kOk : Code::kStale;
}

Code judge_and_report(const FileReply& reply, const Validators& expected, uint64_t expected_bytes,
                      uint32_t entry, const AnswerContext& context) {
  const Code status = judge(reply, expected, expected_bytes);
  if (status == Code::kStale) ++context.counters.files_stale;
  if (status == Code::kStale || (status == Code::kOk && reply.validators != expected))
    context.generation->report_stale(entry);
  return status;
}

uint32_t ChunkReader::ask(FileQueue& files) {
  const auto length = static_cast<uint32_t>(std::min<uint64_t>(end_ - offset_, kSmallFileBytes));
  if (length == 0) return 0;
  FileRequest ask;
  ask.kind = FileRequest::Kind::kReadOpen;
  ask.file = file_;
  ask.ranges = {{.offset = offset_, .length_bytes = length}};
  Chunk chunk;
  chunk.awaited = files.ask(std::move(ask));
  chunk.length_bytes = length;
  chunks_.push_back(std::move(chunk));
  offset_ += length;
  ahead_bytes_ += length;
  return length;
}

bool ChunkReader::on_file(FileReply& reply, const AnswerContext& context) {
  const auto found = std::find_if(chunks_.begin(), chunks_.end(),
                                  [&](const Chunk& chunk) { return chunk.awaited == reply.id; });
  if (found == chunks_.end()) return false;
  found->awaited = 0;
  if (entry_) {
    found->status =
        judge_and_report(reply, entry_->validators, found->length_bytes, entry_->number, context);
  } else {
    const bool whole = reply.sys_errno == 0 && reply.data.size() == found->length_bytes;
    found->status = whole ? Code::kOk : Code::kIo;
  }
  if (found->status == Code::kOk) found->data = std::move(reply.data);
  return true;
}

ChunkReader::Chunk ChunkReader::take() {
  CHECK(is_ready());
  Chunk chunk = std::move(chunks_.front());
  chunks_.pop_front();
  ahead_bytes_ -= chunk.length_bytes;
  return chunk;
}

}  // namespace superlifter::session
