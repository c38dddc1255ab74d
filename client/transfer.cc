#include "client/transfer.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <set>

#include "client/basis.h"
#include "client/moved.h"
#include "client/patcher.h"
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
// The same while sums are awaited: what 1 Gbit/s carries in 30 ms.
constexpr uint64_t kBytesBesideSums = 4 * kMiB;
constexpr uint64_t kRequestBytesBesideSums = kMiB;
constexpr size_t kBasesInTurn = 1024;  // Looked for before the network has its turn again.
constexpr int kTurnMs = 100;
// Begun and not yet in place. Twice a committer's batch, so that one fills while one is published;
// each costs some hundred bytes.
constexpr uint64_t kJobsAhead = 8192;
// Local copies and checks that writers have: what comes from the network must not wait long behind
// them, or the server takes us for dead.
constexpr uint64_t kLocalBytesAhead = 64 * kMiB;

class Transfer {
 public:
  explicit Transfer(TransferContext& context)
      : context_(context), signature_bytes_before_(context.stats.bytes_signature) {}

  std::expected<TransferResult, std::pair<Error, bool>> run() {
    plan();
    const auto handler = [this](const Conversation::ReadEvent& event) { return on_event(event); };
    while (outstanding_ > 0) {
      Status turned = advance_patcher();
      request();
      context_.applier.flush();
      // Nothing on its way: what is finished need not wait for a fuller batch.
      if (flights_.empty() || local_bytes_ >= kLocalBytesAhead) context_.applier.commit_now();
      if (turned) turned = context_.conversation.turn(handler, has_more_bases() ? 0 : kTurnMs);
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
  // Files to fetch whole; grows by what has to be fetched (again).
  struct Queue {
    std::vector<Wanted> wanted;
    size_t next = 0;  // First that was not asked for.

    bool has_more() const { return next < wanted.size(); }
    void push(Wanted one) { wanted.push_back(one); }
  };
  // What one item of a READ brings: a whole file (or the rest of it), or a literal of a patch.
  struct Item {
    uint32_t job = 0;
    uint64_t offset = 0;    // In the file, of the next byte to come.
    uint64_t bytes = 0;     // Asked for,
    uint64_t received = 0;  // and come so far.
    bool is_literal = false;
    bool ended = false;  // All its bytes came (or it failed before).
    bool decided = false;
  };
  // A patch whose literals are on their way, or wait to be asked for.
  struct Patch {
    uint32_t entry = 0;
    std::vector<delta::Range> literals;
    size_t next = 0;       // First literal that was not asked for.
    size_t unended = 0;    // Literals that have not come.
    size_t undecided = 0;  // Literals without a status.
    Code status = Code::kOk;
  };
  struct Flight {  // One READ.
    std::vector<Item> items;
    size_t cursor = 0;  // Item whose bytes come next.
    size_t decided = 0;
    uint64_t bytes = 0;
  };

  void plan() {
    const MovedFiles::Options options{.destination_fd = context_.destination_fd,
                                      .comparison = &context_.comparison,
                                      .state = context_.state,
                                      .table = context_.table};
    moved_ = std::make_unique<MovedFiles>(options);
    moved_->keep_replaced(options, context_.staging);
    for (uint32_t entry = 0; entry < context_.table.count(); ++entry) {
      const Action action = context_.comparison.actions[entry];
      const hash::Xxh128& digest = context_.comparison.xxh[entry];
      if (action == Action::kFetch) {
        if (!moved_->path_of(entry).empty()) {
          locals_.push_back(entry);
        } else if (may_patch(entry)) {
          candidates_.push_back(entry);
        } else {
          queue_.push({.entry = entry});
        }
      } else if ((action == Action::kUnshare || action == Action::kCheck) && digest.known()) {
        locals_.push_back(entry);
      } else if (action == Action::kUnshare || action == Action::kCheck) {
        // Without a digest there is nothing to check against.
        context_.comparison.actions[entry] = Action::kFetch;
        queue_.push({.entry = entry});
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
          action == Action::kFetch ? moved_->path_of(entry) : context_.table.path(entry);
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

  // --- Patches ---

  bool may_patch(uint32_t entry) const {
    return context_.signature_level != 0 && context_.comparison.xxh[entry].known() &&
           context_.table.record(entry).size_bytes > 0;
  }

  void begin_patcher() {
    if (patcher_ != nullptr || candidates_.empty()) return;
    bases_ = std::make_unique<BasisFinder>(context_.destination_fd, context_.table,
                                           context_.comparison.actions);
    patcher_ = std::make_unique<Patcher>(PatcherOptions{.destination_fd = context_.destination_fd,
                                                        .table = context_.table,
                                                        .first_entry = context_.first_entry,
                                                        .signature_level = context_.signature_level,
                                                        .threads = context_.threads},
                                         context_.conversation);
  }

  bool has_more_bases() const {
    return next_candidate_ < candidates_.size() && patcher_ != nullptr && patcher_->has_room();
  }

  // Sums are awaited, or soon will be: content must not get in their way.
  bool is_matching() const {
    return patcher_ != nullptr && (patcher_->awaits_sums() || next_candidate_ < candidates_.size());
  }

  Status advance_patcher() {
    begin_patcher();
    if (patcher_ == nullptr) return {};
    for (size_t i = 0; i < kBasesInTurn && has_more_bases(); ++i) {
      const uint32_t entry = candidates_[next_candidate_++];
      std::optional<Basis> basis;
      if (context_.table.record(entry).size_bytes >= delta::kLeastSignedBytes) {
        basis = bases_->find(entry);
      }
      if (basis) {
        patcher_->add(entry, std::move(basis->path), basis->size_bytes);
      } else {
        (bases_->is_update(entry) ? updates_ : queue_).push({.entry = entry});
      }
    }
    const Status advanced = patcher_->advance();
    context_.stats.bytes_signature = signature_bytes_before_ + patcher_->sum_bytes();
    for (Patcher::Planned& planned : patcher_->take_plans()) {
      if (planned.plan == nullptr) {
        updates_.push({.entry = planned.entry});
      } else {
        plans_.push_back(std::move(planned));
      }
    }
    return advanced;
  }

  // Begins the patch that is next; its literals wait to be asked for.
  void begin_patch(Patcher::Planned planned) {
    Applier::Job job;
    job.entry = planned.entry;
    job.digest = context_.comparison.xxh[planned.entry];
    job.stage_name = context_.staging.new_patch_name();
    job.plan = std::move(planned.plan);
    const bool is_same_path = planned.basis == context_.table.path(planned.entry);
    job.basis = std::move(planned.basis);
    if (context_.in_place && is_same_path) {
      job.in_place = true;
      job.in_place_plan =
          std::make_shared<const delta::InPlacePlan>(delta::order_in_place(*job.plan));
      job.plan = std::shared_ptr<const delta::Plan>(job.in_place_plan, &job.in_place_plan->plan);
    }
    context_.progress.set_current(context_.table.name(planned.entry));
    context_.progress.skip(job.plan->copied_bytes(), 0);
    Patch patch;
    patch.entry = planned.entry;
    patch.literals = job.plan->literals();
    if (patch.literals.empty()) return run_local(std::move(job));
    ++begun_;
    patch.unended = patch.undecided = patch.literals.size();
    const uint32_t number = context_.applier.begin(std::move(job));
    patches_.emplace(number, std::move(patch));
    unasked_.push_back(number);
  }

  // Asks for literals, of as many patches as there is room for.
  void request_literals() {
    while (has_room() && (!unasked_.empty() || !plans_.empty())) {
      Flight flight;
      wire::ReadRequest read;
      read.may_pack = true;
      while (flight.items.size() < kRequestItems && flight.bytes < request_bytes()) {
        if (unasked_.empty()) {
          if (plans_.empty() || begun_ >= kJobsAhead) break;
          begin_patch(std::move(plans_.front()));
          plans_.pop_front();
          continue;
        }
        const uint32_t job = unasked_.front();
        Patch& patch = patches_.at(job);
        const delta::Range& literal = patch.literals[patch.next++];
        read.items.push_back({.entry = context_.first_entry + patch.entry,
                              .offset = literal.offset,
                              .length_bytes = literal.length_bytes});
        flight.items.push_back({.job = job,
                                .offset = literal.offset,
                                .bytes = literal.length_bytes,
                                .is_literal = true});
        flight.bytes += literal.length_bytes;
        if (patch.next == patch.literals.size()) {
          patch.literals = {};
          unasked_.pop_front();
        }
      }
      send(std::move(flight), read);
    }
  }

  void on_literal(const Item& item, const Conversation::ReadEvent& event) {
    Patch& patch = patches_.at(item.job);
    const bool ends = event.ends_item && patch.unended == 1;
    if (patch.status != Code::kOk) return;
    context_.applier.write(item.job, event.slab, event.bytes, item.offset, ends);
  }

  // A literal's status; the patch has its own when all have.
  void on_literal_decided(uint32_t job, Code status) {
    const auto found = patches_.find(job);
    Patch& patch = found->second;
    if (patch.status == Code::kOk) patch.status = status;
    if (--patch.undecided > 0) return;
    context_.applier.decide(job, patch.status);
    patches_.erase(found);
  }

  // --- Requests ---

  bool has_room() const {
    return flights_.size() < kRequestsInFlight &&
           bytes_in_flight_ < (is_matching() ? kBytesBesideSums : kBytesInFlight) &&
           begun_ < kJobsAhead;
  }

  uint64_t request_bytes() const { return is_matching() ? kRequestBytesBesideSums : kRequestBytes; }

  // Starts what there is room for: local jobs, and READs.
  void request() {
    while (next_local_ < locals_.size() && begun_ < kJobsAhead && local_bytes_ < kLocalBytesAhead) {
      start_local(locals_[next_local_++]);
    }
    request_literals();
    request_whole(updates_, true);
    request_whole(queue_, context_.compress);
  }

  void request_whole(Queue& queue, bool may_pack) {
    // A large file would hold up the sums behind it.
    const auto may_start = [&] {
      return queue.has_more() && begun_ < kJobsAhead &&
             (!is_matching() || context_.table.record(queue.wanted[queue.next].entry).size_bytes <=
                                    kRequestBytesBesideSums);
    };
    while (may_start() && has_room()) {
      Flight flight;
      wire::ReadRequest read;
      read.may_pack = may_pack;
      while (may_start() && flight.items.size() < kRequestItems && flight.bytes < request_bytes())
        start(queue.wanted[queue.next++], flight, read);
      send(std::move(flight), read);
    }
  }

  void send(Flight flight, const wire::ReadRequest& read) {
    if (flight.items.empty()) return;
    bytes_in_flight_ += flight.bytes;
    flights_.emplace(context_.conversation.send_read(read), std::move(flight));
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
      context_.applier.write(number, nullptr, {}, 0, true);
      return context_.applier.decide(number, Code::kOk);
    }
    job.in_place = context_.in_place && leftover.name.empty();
    Item item;
    item.offset = job.staged_bytes;
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
      if (!item.ended) end_item(flight, item);
    } else {
      item.received += event.bytes.size();
      if (item.received > item.bytes) return broken("more bytes of a file than were asked for");
      if (item.is_literal) {
        on_literal(item, event);
      } else {
        context_.applier.write(item.job, event.slab, event.bytes, item.offset, event.ends_item);
      }
      item.offset += event.bytes.size();
      context_.stats.bytes_literal += event.bytes.size();
      context_.progress.add(event.bytes.size(), 0);
      if (event.ends_item) end_item(flight, item);
    }
    if (event.decided) {
      if (item.is_literal) {
        on_literal_decided(item.job, event.status);
      } else {
        context_.applier.decide(item.job, event.status);
      }
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

  void end_item(Flight& flight, Item& item) {
    item.ended = true;
    ++flight.cursor;
    if (item.is_literal) --patches_.at(item.job).unended;
  }

  void on_outcome(Applier::Outcome& outcome) {
    Comparison& comparison = context_.comparison;
    const uint32_t entry = outcome.entry;
    --begun_;
    if (outcome.from_local) local_bytes_ -= context_.table.record(entry).size_bytes;
    using Kind = Applier::Outcome::Kind;
    if (outcome.kind == Kind::kMismatch) {
      if (outcome.is_patch) {
        // Sums agreed by chance, or the basis changed meanwhile: whole, then.
        ++context_.stats.files_mismatched;
        updates_.push({.entry = entry, .again = true});
        return;
      }
      if (outcome.from_local) {
        // A local file was not what it was taken for. No harm: fetch it.
        comparison.actions[entry] = Action::kFetch;
        if (may_patch(entry)) {
          candidates_.push_back(entry);
        } else {
          queue_.push({.entry = entry});
        }
        return;
      }
      const bool first_time = refetched_.insert(entry).second;
      if (first_time) {
        queue_.push({.entry = entry, .again = true});
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
        } else if (outcome.is_patch) {
          ++context_.stats.files_patched;
          context_.stats.bytes_matched += outcome.copied_bytes;
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
  Queue queue_;    // New files.
  Queue updates_;  // Files that are here in another version: literal as a whole, packed as such.
  std::vector<uint32_t> candidates_;    // Files that may have a basis.
  size_t next_candidate_ = 0;           // First of candidates_ that none was looked for.
  std::unique_ptr<BasisFinder> bases_;  // When there are candidates, as the patcher.
  std::unique_ptr<Patcher> patcher_;
  uint64_t signature_bytes_before_;     // Of earlier passes.
  std::deque<Patcher::Planned> plans_;  // Of patches that have not begun.
  std::map<uint32_t, Patch> patches_;   // By job.
  std::deque<uint32_t> unasked_;        // Jobs of patches with literals to ask for.
  std::vector<uint32_t> locals_;        // Entries that need no network, if all goes well.
  size_t next_local_ = 0;               // First of locals_ that the applier was not given.
  uint64_t local_bytes_ = 0;            // Of local jobs that the applier has.
  std::unique_ptr<MovedFiles> moved_;   // Once planned.
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
