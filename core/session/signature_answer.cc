// See signature_answer.h.
#include "core/session/signature_answer.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>

#include "core/base/coding.h"
#include "core/base/limits.h"
#include "core/delta/block_length.h"
#include "core/delta/signature.h"

namespace superlifter::session {

using wire::Code;

namespace {

// A frame goes out when it holds so much, or this much and the engine must answer before there is
// more.
constexpr size_t kFullFrameBytes = 256 << 10;
constexpr size_t kEarlyFrameBytes = 16 << 10;
constexpr size_t kSumBytes = sizeof(delta::BlockSum);
// Chunks of one large item on their way.
constexpr uint64_t kItemAheadBytes = 4 * kSmallFileBytes;

static_assert(wire::kFinestSignatureLevel == delta::kFinestLevel);
static_assert(wire::kCoarsestSignatureLevel == delta::kCoarsestLevel);
static_assert(wire::kLeastSumBytes == delta::kLeastWidth);
static_assert(wire::kMostSumBytes == delta::kMostWidth && kSumBytes == delta::kMostWidth);
// Chunks end at block borders.
static_assert(kSmallFileBytes % delta::block_length_bytes(delta::kMostOnDemandLevel) == 0);
static_assert(kSmallFileBytes % kSumBytes == 0);
// A full frame and what one job may add to it.
static_assert(kFullFrameBytes + kSmallFileBytes + kMaxRangesTogether <= kMaxReplyPayload);

struct Blocks {
  uint64_t first = 0;
  uint64_t count = 0;
};

// The blocks that an item means: cut at the file's end.
Blocks blocks_of(const wire::SignatureItem& item, uint64_t file_blocks) {
  const uint64_t first = std::min(item.first_block, file_blocks);
  return {.first = first, .count = std::min(item.block_count, file_blocks - first)};
}

// [offset, offset + length) of a file.
struct Span {
  uint64_t offset = 0;
  uint64_t length = 0;

  FileRequest::Range range() const {
    return {.offset = offset, .length_bytes = static_cast<uint32_t>(length)};
  }
};

// Where the kept sums of an item lie in the pack. REQUIRES: the level is kept.
Span kept_span(const wire::SignatureItem& item, unsigned level,
               const Generation::Signature& signature) {
  const delta::SignatureLayout& layout = signature.layout;
  const uint64_t begin = layout.offset_of(level, 0);
  const uint64_t end = level == layout.coarsest_level()
                           ? layout.size_bytes()
                           : layout.offset_of(level + delta::kLevelStep, 0);
  const Blocks blocks = blocks_of(item, (end - begin) / kSumBytes);
  return {.offset = signature.offset + begin + blocks.first * kSumBytes,
          .length = blocks.count * kSumBytes};
}

// The content of an item's blocks.
Span content_span(const wire::SignatureItem& item, unsigned level, uint64_t file_bytes) {
  const Blocks blocks = blocks_of(item, delta::block_count(file_bytes, level));
  const uint64_t begin = std::min(blocks.first << level, file_bytes);
  const uint64_t end = std::min((blocks.first + blocks.count) << level, file_bytes);
  return {.offset = begin, .length = end - begin};
}

}  // namespace

SignatureAnswer::SignatureAnswer(AnswerContext context, wire::SignatureRequest request)
    : context_(std::move(context)), request_(std::move(request)) {}

bool SignatureAnswer::advance(Outbox& outbox) {
  while (outbox.queued_bytes() < kOutboxHighWaterBytes) {
    look_ahead();
    if (ahead_.empty()) {
      push_sums(wire::kLast, outbox);
      return true;
    }
    if (!answer_front()) {
      if (payload_.size() >= kEarlyFrameBytes) push_sums(0, outbox);
      return false;
    }
    if (payload_.size() >= kFullFrameBytes) push_sums(0, outbox);
  }
  return false;
}

void SignatureAnswer::push_sums(uint8_t flags, Outbox& outbox) {
  push_frame(wire::Type::kSums, flags, context_.request, std::exchange(payload_, {}), outbox);
}

// --- Asking ------------------------------------------------------------------------------------

void SignatureAnswer::look_ahead() {
  while (next_ < request_.items.size() && ahead_.size() < kLookaheadFiles &&
         ahead_bytes_ < kLookaheadBytes && open_files_ < kMaxOpenFilesAhead) {
    const std::optional<Generation::Signature> signature =
        context_.generation->signature(request_.items[next_].entry);
    if (signature && signature->layout.has_level(request_.level)) {
      add_kept_job(*signature);
    } else if (request_.level <= delta::kMostOnDemandLevel) {
      add_file_job();
    } else {
      add_failed_job(Code::kNotFound);
    }
  }
  ask_chunks();
}

void SignatureAnswer::add_failed_job(Code status) {
  Job job;
  job.status = status;
  job.lengths.push_back(0);
  ++next_;
  ahead_.push_back(std::move(job));
}

void SignatureAnswer::add_kept_job(const Generation::Signature& signature) {
  const std::vector<wire::SignatureItem>& items = request_.items;
  Job job;
  job.is_kept = true;
  Span span = kept_span(items[next_], request_.level, signature);
  if (span.length > kSmallFileBytes) {
    job.is_large = true;
    job.lengths.push_back(span.length);
    job.rest = std::make_unique<ChunkReader>(signature.file, span.offset, span.offset + span.length,
                                             std::nullopt);
    ++next_;
    return begin(std::move(job), {});
  }
  FileRequest ask;
  ask.kind = FileRequest::Kind::kReadOpen;
  ask.file = signature.file;
  while (true) {
    job.lengths.push_back(span.length);
    job.bytes += span.length;
    ask.ranges.push_back(span.range());
    if (++next_ == items.size() || ask.ranges.size() == kMaxRangesTogether) break;
    const std::optional<Generation::Signature> other =
        context_.generation->signature(items[next_].entry);
    if (!other || !other->layout.has_level(request_.level) || other->file != ask.file) break;
    span = kept_span(items[next_], request_.level, *other);
    if (job.bytes + span.length > kSmallFileBytes) break;
  }
  begin(std::move(job), std::move(ask));
}

void SignatureAnswer::add_file_job() {
  const std::vector<wire::SignatureItem>& items = request_.items;
  uint64_t& summed = context_.counters.bytes_on_demand;
  Job job;
  job.entry = items[next_].entry;
  Result<Generation::File> file = context_.generation->file(job.entry);
  if (!file) return add_failed_job(to_code(file.error()));
  job.expected = file->validators;
  FileRequest ask;
  ask.open = std::move(file->open);
  while (next_ < items.size() && items[next_].entry == job.entry && !job.is_large &&
         ask.ranges.size() < kMaxRangesTogether) {
    const Span span = content_span(items[next_], request_.level, job.expected.size_bytes);
    const bool is_first = job.lengths.empty();
    if (span.length > kOnDemandBytes - summed) {
      if (is_first) return add_failed_job(Code::kBusy);
      break;
    }
    if (!is_first && job.bytes + span.length > kSmallFileBytes) break;
    summed += span.length;
    job.lengths.push_back(span.length);
    job.bytes += span.length;
    job.is_large = span.length > kSmallFileBytes;
    job.offset = span.offset;
    if (!job.is_large) ask.ranges.push_back(span.range());
    ++next_;
  }
  ask.kind = job.is_large ? FileRequest::Kind::kOpen : FileRequest::Kind::kReadSmall;
  begin(std::move(job), std::move(ask));
}

void SignatureAnswer::begin(Job job, FileRequest ask) {
  if (job.is_large) {
    ++open_files_;
  } else {
    ahead_bytes_ += job.bytes;
  }
  // Of the pack's long ranges only chunks are asked for.
  if (!job.rest) job.awaited = context_.files.ask(std::move(ask));
  ahead_.push_back(std::move(job));
}

// Chunks of large items. The front may always ask: what is ahead of it cannot leave before it.
void SignatureAnswer::ask_chunks() {
  if (open_files_ == 0) return;
  for (Job& job : ahead_) {
    const bool is_front = &job == &ahead_.front();
    if (!is_front && ahead_bytes_ >= kLookaheadBytes) return;
    while (job.rest && job.rest->ahead_bytes() < kItemAheadBytes &&
           (is_front || ahead_bytes_ < kLookaheadBytes)) {
      const uint32_t asked = job.rest->ask(context_.files);
      if (asked == 0) break;
      ahead_bytes_ += asked;
    }
  }
}

void SignatureAnswer::on_file(FileReply reply) {
  for (Job& job : ahead_) {
    if (job.rest && job.rest->on_file(reply, context_)) return;
    if (job.awaited != reply.id) continue;
    job.awaited = 0;
    if (job.is_kept) {
      const bool is_whole = reply.sys_errno == 0 && reply.data.size() == job.bytes;
      job.status = is_whole ? Code::kOk : Code::kIo;
    } else {
      const uint64_t expected_bytes = job.is_large ? 0 : job.bytes;
      job.status = judge_and_report(reply, job.expected, expected_bytes, job.entry, context_);
    }
    job.data = std::move(reply.data);
    if (!job.is_large || job.status != Code::kOk) return;
    job.rest = std::make_unique<ChunkReader>(
        std::move(reply.file), job.offset, job.offset + job.bytes,
        ChunkReader::Entry{.number = job.entry, .validators = job.expected});
    return;
  }
}

// --- Answering ---------------------------------------------------------------------------------

// Answers (more of) the job at the front. False when the engine must answer first.
bool SignatureAnswer::answer_front() {
  Job& job = ahead_.front();
  if (job.awaited != 0) return false;
  if (job.rest || job.zero_bytes > 0) return answer_chunk(job);
  size_t at = 0;
  for (const uint64_t length : job.lengths) {
    append_status(job.status);
    if (job.status != Code::kOk) continue;
    append_sums(job, ByteView(job.data).subspan(at, length));
    at += length;
  }
  drop_front();
  return true;
}

bool SignatureAnswer::answer_chunk(Job& job) {
  if (job.zero_bytes > 0) {
    const uint64_t part = std::min<uint64_t>(job.zero_bytes, kSmallFileBytes);
    append_zeros(job, part);
    job.zero_bytes -= part;
    if (job.zero_bytes == 0) drop_front();
    return true;
  }
  if (!job.rest->is_ready()) return false;
  const ChunkReader::Chunk chunk = job.rest->take();
  ahead_bytes_ -= chunk.length_bytes;
  if (!job.has_begun) append_status(chunk.status);
  if (chunk.status == Code::kOk) {
    job.has_begun = true;
    append_sums(job, chunk.data);
  } else if (job.has_begun) {
    append_zeros(job, chunk.length_bytes);
    job.zero_bytes = job.rest->left_bytes();
    // What is still on its way will be ignored.
    ahead_bytes_ -= job.rest->ahead_bytes();
    job.rest.reset();
    if (job.zero_bytes == 0) drop_front();
    return true;
  }
  if (chunk.status != Code::kOk || job.rest->left_bytes() == 0) drop_front();
  return true;
}

void SignatureAnswer::append_status(Code status) {
  Writer writer(payload_);
  writer.u8(static_cast<uint8_t>(status));  // [sums-status]
}

void SignatureAnswer::append_sums(const Job& job, ByteView bytes) {
  const unsigned width = request_.width_bytes;
  if (!job.is_kept) return delta::append_sums(bytes, request_.level, width, payload_);
  // Kept sums are stored as they are sent, but whole.
  if (width == kSumBytes) {
    payload_.insert(payload_.end(), bytes.begin(), bytes.end());
    return;
  }
  size_t to = payload_.size();
  payload_.resize(to + bytes.size() / kSumBytes * width);
  for (size_t at = 0; at < bytes.size(); at += kSumBytes, to += width)
    std::memcpy(payload_.data() + to, bytes.data() + at, width);
}

// `bytes` are of the pack or of the file.
void SignatureAnswer::append_zeros(const Job& job, uint64_t bytes) {
  const uint64_t sums = job.is_kept ? bytes / kSumBytes : delta::block_count(bytes, request_.level);
  payload_.resize(payload_.size() + sums * request_.width_bytes);
}

void SignatureAnswer::drop_front() {
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
