#include "core/catalog/indexer.h"

#include <algorithm>
#include <cerrno>
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
#include "core/catalog/signature_keeper.h"

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

    keeper_ = std::make_unique<SignatureKeeper>(
        SignatureKeeper::Target{.module = options_.module,
                                .directory_fd = publisher_.directory_fd(),
                                .level = options_.signature_level},
        old_.get(), scan_);
    std::vector<uint32_t> files = files_to_read();
    if (files.empty() && is_live()) return unchanged();
    Result<Journal> journal = Journal::open(publisher_.directory_fd());
    if (!journal) return std::unexpected(journal.error());
    keeper_->begin(*journal);
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
    if (!is_live()) summary_ = keeper_->settle();
    if (!is_live()) {
      if (const Status published = publish_whole(); !published) {
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

  std::vector<uint32_t> files_to_read() const {
    std::vector<uint32_t> out;
    for (uint32_t entry = 0; entry < scan_.table.count(); ++entry) {
      if (needs_digest(scan_, entry) || keeper_->lacks(entry)) out.push_back(entry);
    }
    return out;
  }

  // Takes what an interrupted hashing has left, and what is known of equal content, and takes those
  // files from the list.
  void use_journal(const Journal& journal, std::vector<uint32_t>& files) {
    if (journal.record_count() > 0) {
      std::erase_if(files, [&](uint32_t entry) {
        const std::optional<JournalRecord> found =
            journal.find(scan_.local[entry].device, validators(entry));
        if (!found) return false;
        scan_.xxh[entry] = found->xxh;
        scan_.sha[entry] = found->sha;
        keeper_->take(entry, *found);
        return !keeper_->lacks(entry);
      });
    }
    choose_for_signatures(files);
    follow_leaders();
    order_for_hashing(scan_, files);
    progress_.files_to_hash = files.size();
    for (const uint32_t entry : files) {
      progress_.bytes_to_hash += scan_.table.record(entry).size_bytes;
    }
  }

  // Of files that lack nothing but their signature, one of each content is read; and none while
  // there is no room for what comes of it.
  void choose_for_signatures(std::vector<uint32_t>& files) {
    std::erase_if(files, [this](uint32_t entry) { return keeper_->find(entry); });
    const auto end_of_digests = std::stable_partition(
        files.begin(), files.end(), [this](uint32_t entry) { return needs_digest(scan_, entry); });
    std::vector<uint32_t> for_signatures(end_of_digests, files.end());
    files.erase(end_of_digests, files.end());
    if (for_signatures.empty()) return;
    std::stable_sort(for_signatures.begin(), for_signatures.end(),
                     [this](uint32_t a, uint32_t b) { return scan_.sha[a] < scan_.sha[b]; });
    const auto same = [this](uint32_t a, uint32_t b) { return scan_.sha[a] == scan_.sha[b]; };
    for_signatures.erase(std::unique(for_signatures.begin(), for_signatures.end(), same),
                         for_signatures.end());
    if (!keeper_->make_room(for_signatures)) return;
    files.insert(files.end(), for_signatures.begin(), for_signatures.end());
    std::sort(files.begin(), files.end());
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
    const HashSinks sinks{.journal = journal, .keeper = *keeper_};
    const Result<HashOutcome> outcome = hash_files(options_, scan_, files, sinks, progress);
    if (!outcome) return std::unexpected(outcome.error());
    report_.files_hashed = outcome->counts.files;
    report_.bytes_hashed = outcome->counts.bytes;
    // Files of one content, of which one was read.
    for (uint32_t entry = 0; entry < scan_.table.count(); ++entry)
      static_cast<void>(keeper_->find(entry));
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
      scan_.signatures[entry] = scan_.signatures[first];
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
    return old_ != nullptr && !old_->header().provisional && keeper_->is_in_old_pack() &&
           is_same(scan_, *old_);
  }

  // Signatures must not be what keeps a generation from a disk that is nearly full.
  Status publish_whole() {
    const Status published = publish(false);
    if (published ||
        (published.error().sys_errno != ENOSPC && published.error().sys_errno != EDQUOT)) {
      return published;
    }
    if (!keeper_->take_back()) return published;
    log_warning("module {}: {}; trying without new signatures", escape(options_.module),
                published.error().message);
    summary_ = keeper_->settle();
    return publish(false);
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
    if (!provisional && summary_.pack != 0) {
      parts.header.pack = summary_.pack;
      parts.header.pack_bytes = summary_.pack_bytes;
      parts.header.signature_bytes = summary_.signature_bytes;
      parts.header.signature_level = summary_.level;
      parts.signature_offsets = scan_.signatures;
    }
    const Result<uint64_t> number =
        publisher_.publish(parts, options_.keep_generations, keeper_->pack());
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
    const bool is_new = report_.outcome == IndexReport::Outcome::kPublished;
    const Header* const live = old_ != nullptr && !is_new ? &old_->header() : nullptr;
    report_.signature_bytes = live != nullptr ? live->signature_bytes : summary_.signature_bytes;
    report_.pack_bytes = live != nullptr ? live->pack_bytes : summary_.pack_bytes;
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
  std::unique_ptr<SignatureKeeper> keeper_;  // From the end of the scan on.
  SignatureKeeper::Summary summary_;
  IndexOptions::Progress progress_;
  IndexReport report_;
  uint64_t generation_ = 0;  // Published by this pass; 0: none yet.
  SystemClock clock_;
  const uint64_t started_ms_ = clock_.monotonic_ms();
};

}  // namespace

Result<IndexReport> index_module(const IndexOptions& options) {
  CHECK(options.root_fd >= 0 && options.catalog_fd >= 0);
  CHECK(options.signature_level == 0 ||
        (delta::is_level(options.signature_level) && options.signature_level >= delta::kLeafLevel));
  Result<Publisher> publisher = Publisher::open(options.catalog_fd, options.module);
  if (!publisher) return std::unexpected(publisher.error());
  Result<std::shared_ptr<const Catalog>> old = publisher->current();
  if (!old) return std::unexpected(old.error());
  Result<IndexReport> report = Pass(options, std::move(*publisher), std::move(*old)).run();
  if (!report) return fail_in("index module " + escape(options.module), report.error());
  return report;
}

}  // namespace superlifter::catalog
