// See list_answer.h.
#include "core/session/list_answer.h"

#include <zstd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/base/coding.h"
#include "core/base/limits.h"
#include "core/hash/digest.h"
#include "core/wire/codec.h"
#include "core/wire/frame.h"

namespace superlifter::session {
namespace {

using wire::Code;
using wire::Type;

// zstd level of listed nodes: they are compressed per request, so it must cost little. Level 1 runs
// at some 480 MB/s and the nodes of a usual update are one or two megabytes.
constexpr int kNodesLevel = 1;

Bytes compress(ByteView plain) {
  Bytes out(ZSTD_compressBound(plain.size()));
  const size_t size =
      ZSTD_compress(out.data(), out.size(), plain.data(), plain.size(), kNodesLevel);
  CHECK(ZSTD_isError(size) == 0);
  out.resize(size);
  return out;
}

}  // namespace

BlobAnswer BlobAnswer::of_modules(Store& store) {
  const std::vector<ModuleSummary> modules = store.modules();
  wire::ModuleList list;
  for (const ModuleSummary& module : modules) {
    list.modules.push_back({.name = module.name,
                            .comment = module.comment,
                            .generation = module.generation,
                            .entries = module.totals.entries,
                            .files = module.totals.files,
                            .bytes = module.totals.bytes});
  }
  BlobAnswer answer(Type::kModuleList);
  answer.made_ = wire::encode_module_list(list);
  return answer;
}

std::expected<BlobAnswer, Code> BlobAnswer::of_tree(const Generation& generation,
                                                    const wire::TreeRequest& tree) {
  BlobAnswer answer(Type::kNodes);
  if (tree.all) {
    answer.range_ = generation.all_nodes();
    if (answer.range_.file == nullptr) return std::unexpected(Code::kInternal);
    return answer;
  }
  Bytes plain;
  Writer writer(plain);
  for (const hash::Sha256& digest : tree.nodes) {
    const ByteView node = generation.node(digest);
    if (node.empty()) return std::unexpected(Code::kNotFound);
    writer.varint(node.size());  // [nodes-list]
    writer.bytes(node);
  }
  answer.made_ = compress(plain);
  return answer;
}

bool BlobAnswer::advance(uint32_t request, Outbox& outbox) {
  const bool from_file = range_.file != nullptr;
  while (outbox.queued_bytes() < kOutboxHighWaterBytes) {
    const uint64_t left = from_file ? range_.length_bytes : made_.size() - made_sent_;
    const uint64_t part = std::min<uint64_t>(left, kDataFrameBytes);
    const bool last = part == left;
    Bytes bytes;
    wire::encode_frame_header({.length_bytes = static_cast<uint32_t>(part),
                               .type = type_,
                               .flags = last ? wire::kLast : uint8_t{0},
                               .request = request},
                              bytes);
    if (from_file) {
      outbox.push(std::move(bytes));
      outbox.push(FileRange{range_.file, range_.offset, part});
      range_.offset += part;
      range_.length_bytes -= part;
    } else {
      const ByteView piece = ByteView(made_).subspan(made_sent_, part);
      bytes.insert(bytes.end(), piece.begin(), piece.end());
      made_sent_ += part;
      outbox.push(std::move(bytes));
    }
    if (last) return true;
  }
  return false;
}

std::expected<DigestsAnswer, Code> DigestsAnswer::of(AnswerContext context,
                                                     wire::DigestsRequest digests) {
  const uint64_t entries = context.generation->totals().entries + 1;
  const std::vector<wire::EntryRange>& ranges = digests.ranges;
  if (!ranges.empty() && uint64_t{ranges.back().first} + ranges.back().count > entries)
    return std::unexpected(Code::kNotFound);
  return DigestsAnswer(std::move(context), std::move(digests));
}

bool DigestsAnswer::advance(Outbox& outbox) {
  const bool sha = digests_.kind == wire::DigestKind::kSha256;
  const size_t width = sha ? sizeof(hash::Sha256) : sizeof(hash::Xxh128);
  const std::vector<wire::EntryRange>& ranges = digests_.ranges;
  const Generation& generation = *context_.generation;
  while (outbox.queued_bytes() < kOutboxHighWaterBytes) {
    Bytes payload;
    while (range_ < ranges.size() && payload.size() < kDataFrameBytes) {
      const wire::EntryRange& range = ranges[range_];
      const auto room = static_cast<uint32_t>((kDataFrameBytes - payload.size()) / width);
      const uint32_t count = std::min(range.count - range_done_, room);
      if (count == 0) break;
      const uint32_t first = range.first + range_done_;
      const ByteView digests =
          sha ? generation.sha_digests(first, count) : generation.xxh_digests(first, count);
      payload.insert(payload.end(), digests.begin(), digests.end());
      if (digests.empty()) payload.resize(payload.size() + count * width);
      range_done_ += count;
      if (range_done_ < range.count) break;
      ++range_;
      range_done_ = 0;
    }
    const bool last = range_ == ranges.size();
    push_frame(Type::kDigestList, last ? wire::kLast : uint8_t{0}, context_.request,
               std::move(payload), outbox);
    if (last) return true;
  }
  return false;
}

}  // namespace superlifter::session
