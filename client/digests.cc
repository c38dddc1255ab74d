#include "client/digests.h"

#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "core/base/escape.h"
#include "core/base/limits.h"

namespace superlifter::client {
namespace {

using tree::Record;
using wire::EntryRange;

constexpr uint32_t kDigestsPerRequest = 256 << 10;
constexpr uint32_t kGap = 8;  // Asking for a few that are known is cheaper than another range.
constexpr size_t kRequestsAhead = 8;

class DigestFetch {
 public:
  explicit DigestFetch(const DigestContext& context) : context_(context) {}

  Status run() {
    // What the last pull recorded by itself was never compared with the server's.
    const bool recheck = context_.state != nullptr && context_.state->header().provisional;
    std::vector<EntryRange> ranges;
    for (uint32_t entry = 0; entry < context_.table.count(); ++entry) {
      const bool wanted = wants_digest(entry) &&
                          context_.comparison.actions[entry] != Action::kSkip &&
                          (recheck || !context_.comparison.xxh[entry].known());
      if (wanted) append(ranges, entry);
    }
    if (const Status fetched = fetch(ranges); !fetched) return fetched;
    return check_commitments();
  }

 private:
  bool wants_digest(uint32_t entry) const {
    const Record& record = context_.table.record(entry);
    // A hard link to a file that a filter excludes is a file of its own.
    return record.is_file() && (!record.is_hard_link() ||
                                context_.comparison.actions[record.link_or_files] == Action::kSkip);
  }

  static void append(std::vector<EntryRange>& ranges, uint32_t entry) {
    const bool joins = !ranges.empty() &&
                       entry - (ranges.back().first + ranges.back().count) <= kGap &&
                       entry - ranges.back().first < kDigestsPerRequest;
    if (joins) {
      ranges.back().count = entry + 1 - ranges.back().first;
    } else {
      ranges.push_back({.first = entry, .count = 1});
    }
  }

  // Takes the server's digest of an entry. Where the last pull knew another one for what is in
  // place, the file must be fetched, whatever its size and time say.
  void take(uint32_t entry, const hash::Xxh128& digest) {
    Comparison& comparison = context_.comparison;
    const hash::Xxh128 here = std::exchange(comparison.xxh[entry], digest);
    const Action action = comparison.actions[entry];
    const bool is_in_place = action == Action::kNone || action == Action::kMetadata;
    if (!wants_digest(entry) || !is_in_place || !here.known() || here == digest) return;
    comparison.actions[entry] = Action::kFetch;
    comparison.local[entry] = {};
    --comparison.files_unchanged;
  }

  Status check_commitments() {
    std::vector<tree::LeafCommitment> broken;
    for (const tree::LeafCommitment& leaf : context_.leaves) {
      if (!holds_skipped(leaf) && !keeps(leaf)) broken.push_back(leaf);
    }
    if (broken.empty()) return {};
    // A directory's leaf goes on after its subdirectories' leaves: ranges want ascending numbers.
    std::vector<bool> wanted(context_.table.count(), false);
    for (const tree::LeafCommitment& leaf : broken) {
      uint32_t entry = leaf.first_entry;
      for (uint32_t i = 0; i < leaf.entries; ++i, entry = context_.table.end_of(entry)) {
        wanted[entry] = wants_digest(entry);
      }
    }
    std::vector<EntryRange> ranges;
    for (uint32_t entry = 0; entry < context_.table.count(); ++entry) {
      if (wanted[entry]) append(ranges, entry);
    }
    if (const Status fetched = fetch(ranges); !fetched) return fetched;
    for (const tree::LeafCommitment& leaf : broken) {
      if (keeps(leaf)) continue;
      const uint32_t directory = context_.table.record(leaf.first_entry).parent;
      return fail(Errc::kCorrupt, "the server's digests of the files in '" +
                                      escape(context_.table.path(directory)) +
                                      "' are not those that its directory node commits to");
    }
    return {};
  }

  bool keeps(const tree::LeafCommitment& leaf) const {
    return tree::keeps_commitment(context_.table, leaf, context_.comparison.xxh);
  }

  // Whether the leaf has files whose digests were not asked for, because of a filter.
  bool holds_skipped(const tree::LeafCommitment& leaf) const {
    uint32_t entry = leaf.first_entry;
    for (uint32_t i = 0; i < leaf.entries; ++i, entry = context_.table.end_of(entry)) {
      const Record& record = context_.table.record(entry);
      const uint32_t source = record.is_hard_link() ? record.link_or_files : entry;
      if (context_.comparison.actions[source] == Action::kSkip) return true;
    }
    return false;
  }

  // Asks for the ranges (of the table's numbers), several requests ahead, and fills them in.
  Status fetch(const std::vector<EntryRange>& ranges) {
    struct Sent {
      uint32_t id = 0;
      size_t first = 0;
      size_t count = 0;
    };
    std::deque<Sent> sent;
    size_t next = 0;
    while (next < ranges.size() || !sent.empty()) {
      while (next < ranges.size() && sent.size() < kRequestsAhead) {
        wire::DigestsRequest request;
        uint64_t digests = 0;
        const size_t first = next;
        while (next < ranges.size() && request.ranges.size() < kMaxDigestRanges &&
               digests < kDigestsPerRequest) {
          digests += ranges[next].count;
          request.ranges.push_back(
              {.first = context_.first_entry + ranges[next].first, .count = ranges[next].count});
          ++next;
        }
        sent.push_back({.id = context_.conversation.send_digests(request),
                        .first = first,
                        .count = next - first});
      }
      const Result<Bytes> reply = context_.conversation.wait(sent.front().id);
      if (!reply) return std::unexpected(reply.error());
      ByteView rest = *reply;
      for (size_t i = sent.front().first; i < sent.front().first + sent.front().count; ++i) {
        if (rest.size() < ranges[i].count * sizeof(hash::Xxh128)) {
          return fail(Errc::kProtocol, "the server sent too few digests");
        }
        for (uint32_t entry = ranges[i].first; entry < ranges[i].first + ranges[i].count; ++entry) {
          hash::Xxh128 digest;
          std::memcpy(digest.bytes.data(), rest.data(), digest.bytes.size());
          rest = rest.subspan(digest.bytes.size());
          take(entry, digest);
        }
      }
      sent.pop_front();
    }
    return {};
  }

  const DigestContext& context_;
};

}  // namespace

Status fetch_digests(const DigestContext& context) {
  return DigestFetch(context).run();
}

}  // namespace superlifter::client
