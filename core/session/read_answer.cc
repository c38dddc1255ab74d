// See read_answer.h.
#include "core/session/read_answer.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "core/base/limits.h"

namespace superlifter::session {

using wire::Code;
using wire::Type;

namespace {

struct Span {
  uint64_t offset = 0;
  uint64_t length = 0;
};

// The bytes of a file that an item means: cut at the file's end.
Span span_of(const wire::ReadItem& item, uint64_t file_bytes) {
  const uint64_t offset = std::min(item.offset, file_bytes);
  const uint64_t wanted = item.length_bytes == 0 ? file_bytes : item.length_bytes;
  return {.offset = offset, .length = std::min(wanted, file_bytes - offset)};
}

}  // namespace

ReadAnswer::ReadAnswer(AnswerContext context, wire::ReadRequest request, Packer* packer)
    : context_(std::move(context)),
      items_(std::move(request.items)),
      run_(context_.request, request.may_pack ? packer : nullptr) {}

bool ReadAnswer::advance(Outbox& outbox) {
  while (true) {
    recheck(outbox);
    if (outbox.queued_bytes() >= kOutboxHighWaterBytes) return false;
    look_ahead();
    if (ahead_.empty()) {
      run_.flush(outbox);
      return unchecked_.empty() && next_ == items_.size();
    }
    // What is held waits for more as long as the engine is at work.
    if (!send_front(outbox)) return false;
  }
}

// --- Asking ------------------------------------------------------------------------------------

void ReadAnswer::look_ahead() {
  while (next_ < items_.size() && ahead_.size() < kLookaheadFiles &&
         ahead_bytes_ < kLookaheadBytes && open_files_ < kMaxOpenFilesAhead) {
    add_job();
  }
  ask_chunks();
}

// One job from the next item on: that item alone if it is large, else with those that follow it, as
// long as they are of the same entry and small together.
void ReadAnswer::add_job() {
  Job job;
  job.entry = items_[next_].entry;
  job.first_index = static_cast<uint32_t>(next_);
  Result<Generation::File> file = context_.generation->file(job.entry);
  if (!file) {
    job.status = to_code(file.error());
    job.lengths.push_back(0);
    ++next_;
    ahead_.push_back(std::move(job));
    return;
  }
  job.expected = file->validators;
  FileRequest ask;
  ask.open = std::move(file->open);
  while (next_ < items_.size() && items_[next_].entry == job.entry &&
         job.lengths.size() < kMaxRangesTogether) {
    const Span span = span_of(items_[next_], job.expected.size_bytes);
    job.is_large = job.lengths.empty() && span.length > kSmallFileBytes;
    if (!job.is_large && job.bytes + span.length > kSmallFileBytes) break;
    job.lengths.push_back(span.length);
    job.bytes += span.length;
    ++next_;
    if (job.is_large) {
      job.offset = span.offset;
      break;
    }
    ask.ranges.push_back(
        {.offset = span.offset, .length_bytes = static_cast<uint32_t>(span.length)});
  }
  ask.kind = job.is_large ? FileRequest::Kind::kOpen : FileRequest::Kind::kReadSmall;
  job.awaited = context_.files.ask(std::move(ask));
  if (job.is_large) {
    ++open_files_;
  } else {
    ahead_bytes_ += job.bytes;
  }
  ahead_.push_back(std::move(job));
}

// Chunks of large items, where packing is worth a try. The front may always ask: what is ahead of
// it cannot leave before it.
void ReadAnswer::ask_chunks() {
  const size_t appetite = run_.appetite_bytes();
  if (appetite == 0 || open_files_ == 0) return;
  for (Job& job : ahead_) {
    const bool is_front = &job == &ahead_.front();
    if (!is_front && ahead_bytes_ >= kLookaheadBytes) return;
    while (job.rest && job.status == Code::kOk && job.rest->ahead_bytes() < appetite &&
           (is_front || ahead_bytes_ < kLookaheadBytes)) {
      const uint32_t asked = job.rest->ask(context_.files);
      if (asked == 0) break;
      ahead_bytes_ += asked;
    }
  }
}

// Large items whose last byte has left: looks once more whether they changed meanwhile, and says
// so.
void ReadAnswer::recheck(Outbox& outbox) {
  for (Job& job : unchecked_) {
    if (job.awaited != 0 || job.is_checked || job.sent_position > outbox.left_position()) continue;
    FileRequest ask;
    ask.kind = FileRequest::Kind::kRecheck;
    ask.file = job.rest->file();
    job.awaited = context_.files.ask(std::move(ask));
  }
  while (!unchecked_.empty() && unchecked_.front().is_checked) {
    const Job& job = unchecked_.front();
    run_.add_status({.index = job.first_index, .status = job.status}, outbox);
    if (job.status == Code::kOk) ++context_.counters.files_sent;
    unchecked_.pop_front();
    --open_files_;
  }
}

// --- Replies -----------------------------------------------------------------------------------

void ReadAnswer::on_file(FileReply reply) {
  for (Job& job : ahead_) {
    if (job.rest && job.rest->on_file(reply, context_)) return;
    if (job.awaited != reply.id) continue;
    job.awaited = 0;
    if (job.is_large) return on_open(job, reply);
    job.status = judge_and_report(reply, job.expected, job.bytes, job.entry, context_);
    job.data = std::move(reply.data);
    return;
  }
  for (Job& job : unchecked_) {
    if (job.awaited != reply.id) continue;
    job.awaited = 0;
    job.status = judge_and_report(reply, job.expected, 0, job.entry, context_);
    // Of a file that grew shorter under a frame and long again nothing else would tell.
    const bool shrunk = job.rest->file()->shrunk.load(std::memory_order_relaxed);
    if (shrunk && job.status == Code::kOk) {
      job.status = Code::kStale;
      ++context_.counters.files_stale;
      context_.generation->report_stale(job.entry);
    }
    job.is_checked = true;
    return;
  }
}

void ReadAnswer::on_open(Job& job, FileReply& reply) {
  job.status = judge_and_report(reply, job.expected, 0, job.entry, context_);
  if (job.status != Code::kOk) return;
  job.rest = std::make_unique<ChunkReader>(
      std::move(reply.file), job.offset, job.offset + job.bytes,
      ChunkReader::Entry{.number = job.entry, .validators = job.expected});
}

// --- Sending -----------------------------------------------------------------------------------

// Sends (more of) the job at the front. False when the engine must answer first.
bool ReadAnswer::send_front(Outbox& outbox) {
  Job& job = ahead_.front();
  if (job.awaited != 0) return false;
  if (job.status != Code::kOk) {
    for (uint32_t i = 0; i < job.lengths.size(); ++i)
      run_.add_status({.index = job.first_index + i, .status = job.status}, outbox);
    drop_front();
    return true;
  }
  if (!job.is_large) {
    send_small(job, outbox);
    ++context_.counters.files_sent;
    drop_front();
    return true;
  }
  if (!job.has_begun) {
    job.has_begun = true;
    run_.try_again();
  }
  if (job.rest->ahead_bytes() > 0) return send_chunk(job, outbox);
  if (run_.appetite_bytes() > 0) {
    ask_chunks();
    return false;
  }
  return send_range(job, outbox);
}

void ReadAnswer::send_small(Job& job, Outbox& outbox) {
  constexpr uint8_t kFlags = wire::kItemEnd | wire::kItemOk;
  if (job.lengths.size() == 1) return run_.add(Type::kData, kFlags, std::move(job.data), outbox);
  auto at = job.data.begin();
  for (const uint64_t length : job.lengths) {
    const auto end = at + static_cast<ptrdiff_t>(length);
    run_.add(Type::kData, kFlags, Bytes(at, end), outbox);
    at = end;
  }
}

bool ReadAnswer::send_chunk(Job& job, Outbox& outbox) {
  if (!job.rest->is_ready()) return false;
  ChunkReader::Chunk chunk = job.rest->take();
  ahead_bytes_ -= chunk.length_bytes;
  if (chunk.status != Code::kOk) {
    run_.add(Type::kData, wire::kItemEnd, {}, outbox);
    run_.add_status({.index = job.first_index, .status = chunk.status}, outbox);
    drop_front();
    return true;
  }
  const bool last = job.rest->left_bytes() == 0;
  uint8_t flags = last ? wire::kItemEnd : uint8_t{0};
  if (last && !job.has_ranges) flags |= wire::kItemOk;
  run_.add(Type::kData, flags, std::move(chunk.data), outbox);
  if (!last) return true;
  if (job.has_ranges) {
    unchecked_.push_back(std::move(job));
    ahead_.pop_front();
  } else {
    ++context_.counters.files_sent;
    drop_front();
  }
  return true;
}

bool ReadAnswer::send_range(Job& job, Outbox& outbox) {
  const uint64_t left = job.rest->left_bytes();
  const uint64_t part = std::min({left, uint64_t{kDataFrameBytes}, run_.plain_bytes()});
  const bool last = part == left;
  run_.add_range(Type::kData, last ? wire::kItemEnd : uint8_t{0},
                 FileRange{job.rest->file(), job.rest->offset(), part}, outbox);
  job.rest->pass(part);
  job.has_ranges = true;
  job.sent_position = outbox.pushed_position();
  if (!last) return true;
  unchecked_.push_back(std::move(job));
  ahead_.pop_front();
  return true;
}

// The front is done with, or has failed: replies to it that are still on their way are ignored.
void ReadAnswer::drop_front() {
  const Job& job = ahead_.front();
  if (job.is_large) {
    --open_files_;
    if (job.rest) ahead_bytes_ -= job.rest->ahead_bytes();
  } else {
    ahead_bytes_ -= job.bytes;
  }
  ahead_.pop_front();
}

}  // namespace superlifter::session
