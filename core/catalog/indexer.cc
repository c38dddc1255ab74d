#include "core/catalog/indexer.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>

#include "core/base/check.h"
#include "core/base/clock.h"
#include "core/base/escape.h"
#include "core/base/log.h"
#include "core/catalog/file_hasher.h"
#include "core/catalog/journal.h"
#include "core/catalog/publisher.h"
#include "core/catalog/scan.h"

namespace superlifter::catalog {
namespace {

class Pass {
 public:
  Pass(const IndexOptions& options, Publisher publisher, std::shared_ptr<const Catalog> old)
      : options_(options),
        publisher_(std::move(publisher)),
        old_(std::move(old)),
        left_out_(options.module) {}

  Result<IndexReport> run() {
    Result<Scan> scanned = scan_module(options_, old_.get(), left_out_, [this](uint64_t seen) {
      progress_.entries_seen = seen;
      tell_progress();
    });
    if (!scanned) return std::unexpected(scanned.error());
    scan_ = std::move(*scanned);
    if (!scan_.held_by.empty()) return held(scan_.held_by);
    progress_.entries_seen = scan_.table.count();

    std::vector<uint32_t> files = files_to_hash();
    if (files.empty() && is_live()) return unchanged();
    Result<Journal> journal = Journal::open(publisher_.directory_fd());
    if (!journal) return std::unexpected(journal.error());
    use_journal(*journal, files);
    if (const Status served = publish_provisional(files); !served) {
      return std::unexpected(served.error());
    }
    if (!files.empty()) {
      if (const Status hashed = hash(*journal, files); !hashed) {
        return std::unexpected(hashed.error());
      }
      const Result<std::string> hold = hold_by_now();
      if (!hold) return std::unexpected(hold.error());
      if (!hold->empty()) return held(*hold);
    }
    left_out_.log_rest();
    if (!is_live()) {
      if (const Status published = publish(false); !published) {
        return std::unexpected(published.error());
      }
      report_.outcome = IndexReport::Outcome::kPublished;
    } else {
      report_.outcome = IndexReport::Outcome::kUnchanged;
    }
    journal->remove();
    return finish_report();
  }

 private:
  static bool needs_digest(const Scan& scan, uint32_t entry) {
    const tree::Record& record = scan.table.view().record(entry);
    return record.is_file() && !record.is_hard_link() &&
           !(scan.xxh[entry].known() && scan.sha[entry].known());
  }

  std::vector<uint32_t> files_to_hash() const {
    std::vector<uint32_t> out;
    for (uint32_t entry = 0; entry < scan_.table.count(); ++entry) {
      if (needs_digest(scan_, entry)) out.push_back(entry);
    }
    return out;
  }

  // Takes what an interrupted hashing has left, and takes those files from the list.
  void use_journal(const Journal& journal, std::vector<uint32_t>& files) {
    if (journal.record_count() > 0) {
      std::erase_if(files, [&](uint32_t entry) {
        const std::optional<JournalRecord> found =
            journal.find(scan_.local[entry].device, validators(entry));
        if (!found) return false;
        scan_.xxh[entry] = found->xxh;
        scan_.sha[entry] = found->sha;
        return true;
      });
      follow_leaders();
    }
    order_for_hashing(scan_, files);
    progress_.files_to_hash = files.size();
    for (const uint32_t entry : files) {
      progress_.bytes_to_hash += scan_.table.record(entry).size_bytes;
    }
  }

  Validators validators(uint32_t entry) {
    const tree::Record& record = scan_.table.record(entry);
    const LocalStat& local = scan_.local[entry];
    Validators out;
    out.inode = local.inode;
    out.size_bytes = record.size_bytes;
    out.mtime_s = record.mtime_s;
    out.mtime_ns = record.mtime_ns;
    out.ctime_s = local.ctime_s;
    out.ctime_ns = local.ctime_ns;
    return out;
  }

  // While there is no whole generation, what is known serves: names, sizes and times.
  Status publish_provisional(const std::vector<uint32_t>& files) {
    const bool first = old_ == nullptr;
    if (files.empty() || (!first && !old_->header().provisional)) return {};
    if (!first && is_same(scan_, *old_)) return {};
    if (const Status published = publish(true); !published) return published;
    if (options_.on_provisional) {
      IndexReport report = *finish_report();
      report.outcome = IndexReport::Outcome::kPublished;
      options_.on_provisional(report);
    }
    return {};
  }

  Status hash(Journal& journal, const std::vector<uint32_t>& files) {
    const auto progress = [this](HashCounts counts) {
      progress_.files_hashed = counts.files;
      progress_.bytes_hashed = counts.bytes;
      tell_progress();
    };
    const Result<HashOutcome> outcome = hash_files(options_, scan_, files, journal, progress);
    if (!outcome) return std::unexpected(outcome.error());
    report_.files_hashed = outcome->counts.files;
    report_.bytes_hashed = outcome->counts.bytes;
    return apply(outcome->surprises);
  }

  // Brings the table in line with what the hashing met.
  Status apply(std::vector<HashSurprise> surprises) {
    // The same order whatever the threads did, for owner names and the log.
    std::sort(surprises.begin(), surprises.end(),
              [](const HashSurprise& a, const HashSurprise& b) { return a.entry < b.entry; });
    std::vector<bool> drop(scan_.table.count(), false);
    bool any_dropped = false;
    for (const HashSurprise& surprise : surprises) {
      switch (surprise.kind) {
        case HashSurprise::Kind::kUnreadable:
          left_out_.add(scan_.table.view().path(surprise.entry), std::strerror(surprise.sys_errno));
          [[fallthrough]];
        case HashSurprise::Kind::kGone:
          drop[surprise.entry] = true;
          any_dropped = true;
          break;
        case HashSurprise::Kind::kNoDigest:
          log_no_digest(surprise);
          [[fallthrough]];
        case HashSurprise::Kind::kChanged:
          if (surprise.stat.st_ino == 0) break;
          if (const Status updated = update_entry(scan_, surprise.entry, surprise.stat, options_);
              !updated) {
            return updated;
          }
          break;
      }
    }
    const bool groups_whole = follow_leaders();
    if (any_dropped || !groups_whole) {
      Result<Scan> mended = without(scan_, drop);
      if (!mended) return std::unexpected(mended.error());
      scan_ = std::move(*mended);
    }
    scan_.table.finish();
    return {};
  }

  void log_no_digest(const HashSurprise& surprise) const {
    const char* const why = surprise.sys_errno != 0 ? std::strerror(surprise.sys_errno)
                                                    : "keeps changing while it is read";
    log_warning("module {}: no digest: {}: {}", escape(options_.module),
                escape(scan_.table.view().path(surprise.entry)), why);
  }

  // Gives each hard link what its first entry has. False when some group has come apart.
  bool follow_leaders() {
    bool whole = true;
    for (uint32_t entry = 0; entry < scan_.table.count(); ++entry) {
      tree::Record& record = scan_.table.record(entry);
      if (!record.is_hard_link()) continue;
      const uint32_t first = record.link_or_files;
      if (!is_group_whole(scan_, entry)) {
        whole = false;
        continue;
      }
      const tree::Record& leader = scan_.table.record(first);
      record.size_bytes = leader.size_bytes;
      record.mtime_s = leader.mtime_s;
      record.mtime_ns = leader.mtime_ns;
      record.mode = leader.mode;
      record.owner = leader.owner;
      record.group = leader.group;
      scan_.local[entry] = scan_.local[first];
      scan_.xxh[entry] = scan_.xxh[first];
      scan_.sha[entry] = scan_.sha[first];
    }
    return whole;
  }

  // A sync from upstream may have begun while files were read; then some of them are of the new
  // state.
  Result<std::string> hold_by_now() const {
    if (options_.hold_while.empty()) return std::string();
    return find_hold(options_);
  }

  // Whether the live generation says all that this scan says.
  bool is_live() const {
    return old_ != nullptr && !old_->header().provisional && is_same(scan_, *old_);
  }

  Status publish(bool provisional) {
    const tree::TableView table = scan_.table.view();
    NodePack nodes;
    // A node holds a name and some 20 bytes an entry, and 32 more for a directory. Address space is
    // cheap.
    nodes.reserve(table.count() / 8, table.strings().size() + size_t{table.count()} * 40);
    Parts parts;
    parts.header.root = tree::encode_tree(
        table, {.xxh = scan_.xxh, .sha = scan_.sha},
        [&nodes](const hash::Sha256& digest, ByteView bytes) { nodes.add(digest, bytes); });
    nodes.sort();
    parts.header.provisional = provisional;
    parts.table = table;
    parts.nodes = &nodes;
    parts.xxh = scan_.xxh;
    parts.sha = scan_.sha;
    parts.local = scan_.local;
    const Result<uint64_t> number = publisher_.publish(parts, options_.keep_generations);
    if (!number) return std::unexpected(number.error());
    generation_ = *number;
    return {};
  }

  Result<IndexReport> unchanged() {
    left_out_.log_rest();
    report_.outcome = IndexReport::Outcome::kUnchanged;
    return finish_report();
  }

  Result<IndexReport> held(const std::string& by) {
    report_.outcome = IndexReport::Outcome::kHeld;
    report_.held_by = by;
    return finish_report();
  }

  Result<IndexReport> finish_report() {
    const tree::Totals totals = scan_.table.view().totals();
    report_.generation = generation_ != 0  ? generation_
                         : old_ != nullptr ? old_->header().generation
                                           : 0;
    report_.entries = totals.entries;
    report_.files = totals.files;
    report_.bytes = totals.bytes;
    report_.left_out = left_out_.count();
    report_.files_without_digest = 0;
    for (uint32_t entry = 0; entry < scan_.table.count(); ++entry) {
      if (needs_digest(scan_, entry)) ++report_.files_without_digest;
    }
    report_.elapsed_s = static_cast<double>(clock_.monotonic_ms() - started_ms_) / 1000;
    return report_;
  }

  void tell_progress() const {
    if (options_.on_progress) options_.on_progress(progress_);
  }

  const IndexOptions& options_;
  Publisher publisher_;
  const std::shared_ptr<const Catalog> old_;  // With whoever else has the generation open.
  LeftOut left_out_;
  Scan scan_;
  IndexOptions::Progress progress_;
  IndexReport report_;
  uint64_t generation_ = 0;  // Published by this pass; 0: none yet.
  SystemClock clock_;
  const uint64_t started_ms_ = clock_.monotonic_ms();
};

}  // namespace

Result<IndexReport> index_module(const IndexOptions& options) {
  CHECK(options.root_fd >= 0 && options.catalog_fd >= 0);
  Result<Publisher> publisher = Publisher::open(options.catalog_fd, options.module);
  if (!publisher) return std::unexpected(publisher.error());
  Result<std::shared_ptr<const Catalog>> old = publisher->current();
  if (!old) return std::unexpected(old.error());
  Result<IndexReport> report = Pass(options, std::move(*publisher), std::move(*old)).run();
  if (!report) return fail_in("index module " + escape(options.module), report.error());
  return report;
}

}  // namespace superlifter::catalog
