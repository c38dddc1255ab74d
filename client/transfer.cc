#include "client/transfer.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>
#include <unordered_map>

#include "core/base/escape.h"
#include "core/base/limits.h"

namespace superlifter::client {
namespace {

using tree::Record;
using wire::Code;

constexpr size_t kRequestItems = 512;         // In one READ.
constexpr uint64_t kRequestBytes = 8 * kMiB;  // Stop adding to one READ beyond this.
constexpr size_t kRequestsInFlight = 16;
constexpr uint64_t kBytesInFlight = 32 * kMiB;
constexpr int kTurnMs = 100;
// Begun and not yet in place. Twice a committer's batch, so that one fills while one is published;
// each costs some hundred bytes.
constexpr uint64_t kJobsAhead = 8192;
// Local copies and checks that writers have: what comes from the network must not wait long behind
// them, or the server takes us for dead.
constexpr uint64_t kLocalBytesAhead = 64 * kMiB;

struct DigestHash {
  size_t operator()(const hash::Xxh128& digest) const {
    size_t value = 0;
    std::memcpy(&value, digest.bytes.data(), sizeof(value));
    return value;
  }
};

class Transfer {
 public:
  explicit Transfer(TransferContext& context) : context_(context) {}

  std::expected<TransferResult, std::pair<Error, bool>> run() {
    plan();
    const auto handler = [this](const Conversation::ReadEvent& event) { return on_event(event); };
    while (outstanding_ > 0) {
      request();
      context_.applier.flush();
      // Nothing on its way: what is finished need not wait for a fuller batch.
      if (flights_.empty() || local_bytes_ >= kLocalBytesAhead) context_.applier.commit_now();
      Status turned = context_.conversation.turn(handler, kTurnMs);
      context_.applier.flush();
      for (Applier::Outcome& outcome : context_.applier.take_outcomes()) {
        on_outcome(outcome);
      }
      context_.progress.tick();
      if (fatal_) return std::unexpected(std::pair(*fatal_, true));
      if (!turned && turned.error().code == Errc::kGone) {
        context_.conversation.abandon_reads();
        result_.gone = true;
        return std::move(result_);
      }
      if (turned && flights_.empty()) turned = context_.conversation.keep_alive();
      if (!turned) return std::unexpected(std::pair(turned.error(), false));
    }
    return std::move(result_);
  }

 private:
  struct Wanted {
    uint32_t entry = 0;
    bool again = false;  // The first copy did not have its digest.
  };
  struct Item {
    uint32_t job = 0;
    uint32_t entry = 0;
    uint64_t bytes = 0;     // Asked for,
    uint64_t received = 0;  // and come so far.
    bool ended = false;     // All its bytes came (or it failed before).
    bool decided = false;
  };
  struct Flight {  // One READ.
    std::vector<Item> items;
    size_t cursor = 0;  // Item whose bytes come next.
    size_t decided = 0;
    uint64_t bytes = 0;
  };

  void plan() {
    moved_ = find_moved();
    for (uint32_t entry = 0; entry < context_.table.count(); ++entry) {
      const Action action = context_.comparison.actions[entry];
      const hash::Xxh128& digest = context_.comparison.xxh[entry];
      if (action == Action::kFetch) {
        if (digest.known() && moved_.contains(digest)) {
          locals_.push_back(entry);
        } else {
          queue_.push_back({.entry = entry});
        }
      } else if ((action == Action::kUnshare || action == Action::kCheck) && digest.known()) {
        locals_.push_back(entry);
      } else if (action == Action::kUnshare || action == Action::kCheck) {
        // Without a digest there is nothing to check against.
        context_.comparison.actions[entry] = Action::kFetch;
        queue_.push_back({.entry = entry});
      } else {
        continue;
      }
      ++outstanding_;
    }
  }

  // A check of what is in place, or a copy of what is here under another name or shared.
  void start_local(uint32_t entry) {
    const Action action = context_.comparison.actions[entry];
    Applier::Job job;
    job.entry = entry;
    job.digest = context_.comparison.xxh[entry];
    job.check_only = action == Action::kCheck;
    if (!job.check_only) {
      job.copy_from =
          action == Action::kFetch ? moved_.find(job.digest)->second : context_.table.path(entry);
      job.stage_name =
          context_.staging.new_name(job.digest, context_.table.record(entry).size_bytes);
    }
    run_local(std::move(job));
  }

  void run_local(Applier::Job job) {
    ++begun_;
    local_bytes_ += context_.table.record(job.entry).size_bytes;
    context_.applier.run_local(std::move(job));
  }

  // Content that DEST had under another name at the last pull: digest -> path.
  std::unordered_map<hash::Xxh128, std::string, DigestHash> find_moved() {
    std::unordered_map<hash::Xxh128, std::string, DigestHash> found;
    if (context_.state == nullptr) return found;
    for (uint32_t entry = 0; entry < context_.table.count(); ++entry) {
      const hash::Xxh128& digest = context_.comparison.xxh[entry];
      const bool wanted = context_.comparison.actions[entry] == Action::kFetch && digest.known() &&
                          context_.table.record(entry).size_bytes > 0;
      if (wanted) found.try_emplace(digest);
    }
    if (found.empty()) return found;
    const catalog::Catalog& state = *context_.state;
    for (uint32_t entry = 0; entry < state.table().count(); ++entry) {
      if (!state.local()[entry].known() || !state.table().record(entry).is_file()) continue;
      const auto wanted = found.find(state.xxh()[entry]);
      if (wanted != found.end() && wanted->second.empty())
        wanted->second = state.table().path(entry);
    }
    std::erase_if(found, [](const auto& item) { return item.second.empty(); });
    return found;
  }

  // Starts what there is room for: local jobs, and READs from the queue.
  void request() {
    while (next_local_ < locals_.size() && begun_ < kJobsAhead && local_bytes_ < kLocalBytesAhead) {
      start_local(locals_[next_local_++]);
    }
    while (next_ < queue_.size() && flights_.size() < kRequestsInFlight &&
           bytes_in_flight_ < kBytesInFlight && begun_ < kJobsAhead) {
      Flight flight;
      wire::ReadRequest read;
      while (next_ < queue_.size() && flight.items.size() < kRequestItems &&
             flight.bytes < kRequestBytes && begun_ < kJobsAhead) {
        start(queue_[next_++], flight, read);
      }
      if (flight.items.empty()) continue;
      bytes_in_flight_ += flight.bytes;
      flights_.emplace(context_.conversation.send_read(read), std::move(flight));
    }
  }

  void start(const Wanted& wanted, Flight& flight, wire::ReadRequest& read) {
    const Record& record = context_.table.record(wanted.entry);
    Applier::Job job;
    job.entry = wanted.entry;
    job.digest = context_.comparison.xxh[wanted.entry];
    Staging::Leftover leftover;
    if (!wanted.again) leftover = context_.staging.take_leftover(job.digest, record.size_bytes);
    job.stage_name = leftover.name.empty()
                         ? context_.staging.new_name(job.digest, record.size_bytes)
                         : leftover.name;
    job.staged_bytes = leftover.size_bytes;
    context_.progress.set_current(context_.table.name(wanted.entry));
    context_.progress.skip(job.staged_bytes, 0);
    if (record.size_bytes == job.staged_bytes) {
      // Whole already, or empty: nothing has to cross the wire.
      if (record.size_bytes > 0) return run_local(std::move(job));
      ++begun_;
      const uint32_t number = context_.applier.begin(std::move(job));
      context_.applier.write(number, nullptr, {}, true);
      return context_.applier.decide(number, Code::kOk);
    }
    Item item;
    item.entry = wanted.entry;
    item.bytes = record.size_bytes - job.staged_bytes;
    read.items.push_back({.entry = context_.first_entry + wanted.entry,
                          .offset = job.staged_bytes,
                          .length_bytes = item.bytes});
    flight.bytes += item.bytes;
    ++begun_;
    if (wanted.again) ++context_.stats.files_refetched;
    item.job = context_.applier.begin(std::move(job));
    flight.items.push_back(item);
  }

  Status on_event(const Conversation::ReadEvent& event) {
    const auto broken = [](const char* what) { return fail(Errc::kProtocol, what); };
    const auto found = flights_.find(event.request);
    if (found == flights_.end()) return broken("file content for a request that has ended");
    Flight& flight = found->second;
    const size_t index = event.is_item_status ? event.index : flight.cursor;
    if (index >= flight.items.size() || index > flight.cursor) {
      return broken("file content or a status for an item that is not its turn");
    }
    Item& item = flight.items[index];
    if (item.decided) return broken("a second status for one item");
    if (event.is_item_status) {
      if (event.status == Code::kOk && !item.ended)
        return broken("an item that is OK before its end");
      if (!item.ended) ++flight.cursor;
      item.ended = true;
    } else {
      item.received += event.bytes.size();
      if (item.received > item.bytes) return broken("more bytes of a file than were asked for");
      context_.applier.write(item.job, event.slab, event.bytes, event.ends_item);
      context_.stats.bytes_literal += event.bytes.size();
      context_.progress.add(event.bytes.size(), 0);
      item.ended = event.ends_item;
      if (item.ended) ++flight.cursor;
    }
    if (event.decided) {
      context_.applier.decide(item.job, event.status);
      item.decided = true;
      ++flight.decided;
    }
    if (flight.decided == flight.items.size()) {
      bytes_in_flight_ -= flight.bytes;
      context_.conversation.end_read(event.request);
      flights_.erase(found);
    }
    return {};
  }

  void on_outcome(Applier::Outcome& outcome) {
    Comparison& comparison = context_.comparison;
    const uint32_t entry = outcome.entry;
    --begun_;
    if (outcome.from_local) local_bytes_ -= context_.table.record(entry).size_bytes;
    using Kind = Applier::Outcome::Kind;
    if (outcome.kind == Kind::kMismatch) {
      if (outcome.from_local) {
        // A local file was not what it was taken for. No harm: fetch it.
        comparison.actions[entry] = Action::kFetch;
        queue_.push_back({.entry = entry});
        return;
      }
      const bool first_time = refetched_.insert(entry).second;
      if (first_time) {
        queue_.push_back({.entry = entry, .again = true});
        return;
      }
      outcome.kind = Kind::kFailed;
      outcome.error.message = escape(context_.table.path(entry)) +
                              ": its content does not have the digest that the generation states, "
                              "twice: the server's copy or catalog is damaged";
    }
    --outstanding_;
    switch (outcome.kind) {
      case Kind::kApplied:
        comparison.local[entry] = outcome.local;
        comparison.xxh[entry] = outcome.digest;
        context_.progress.add(0, 1);
        if (outcome.checked_only) {
          ++context_.stats.files_unchanged;
          context_.progress.skip(context_.table.record(entry).size_bytes, 0);
        } else if (outcome.from_local && comparison.actions[entry] != Action::kFetch) {
          ++context_.stats.files_unchanged;
        } else if (outcome.from_local) {
          // A whole leftover was fetched, if by an earlier run.
          ++(outcome.is_copy ? context_.stats.files_moved : context_.stats.files_fetched);
          context_.stats.bytes_matched += context_.table.record(entry).size_bytes;
        } else {
          ++context_.stats.files_fetched;
        }
        break;
      case Kind::kStale:
        comparison.local[entry] = {};
        result_.stale.push_back(outcome.error.message);
        break;
      case Kind::kFailed:
        comparison.local[entry] = {};
        if (outcome.is_fatal && !fatal_) fatal_ = outcome.error;
        result_.errors.push_back(outcome.error.message);
        break;
      case Kind::kMismatch:
        break;
    }
  }

  TransferContext& context_;
  TransferResult result_;
  std::vector<Wanted> queue_;     // Files to fetch; grows by what has to be fetched (again).
  size_t next_ = 0;               // First of queue_ that was not asked for.
  std::vector<uint32_t> locals_;  // Entries that need no network, if all goes well.
  size_t next_local_ = 0;         // First of locals_ that the applier was not given.
  uint64_t local_bytes_ = 0;      // Of local jobs that the applier has.
  std::unordered_map<hash::Xxh128, std::string, DigestHash> moved_;  // See find_moved().
  std::map<uint32_t, Flight> flights_;
  uint64_t bytes_in_flight_ = 0;
  uint64_t begun_ = 0;        // Jobs that the applier has.
  uint64_t outstanding_ = 0;  // Jobs without an outcome, asked for or not.
  std::set<uint32_t> refetched_;
  std::optional<Error> fatal_;
};

}  // namespace

std::expected<TransferResult, std::pair<Error, bool>> transfer(TransferContext& context) {
  return Transfer(context).run();
}

}  // namespace superlifter::client
