#include "core/catalog/signature_keeper.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/base/check.h"
#include "core/base/escape.h"
#include "core/base/log.h"
#include "core/catalog/format.h"

namespace superlifter::catalog {
namespace {

// A pack is replaced when more than a quarter of it is garbage (FORMAT.md section 5), but not for
// less than this: a copy that saves nothing much is not worth it.
constexpr uint64_t kLeastGarbageBytes = 1 << 20;

ByteView stored(std::span<const delta::BlockSum> sums) {
  return {reinterpret_cast<const uint8_t*>(sums.data()), sums.size_bytes()};
}

}  // namespace

// --- ContentIndex ------------------------------------------------------------------------------

ContentIndex::ContentIndex(const Catalog* old, const Scan& scan, size_t entries)
    : old_(old),
      scan_(scan),
      old_count_(old != nullptr ? old->table().count() : 0),
      slots_(std::bit_ceil(2 * std::max<size_t>(entries, 1)), 0) {}

void ContentIndex::add_old(uint32_t entry) {
  uint64_t& slot = slots_[slot_of(old_->sha()[entry])];
  if (slot == 0) slot = 1 + uint64_t{entry};
}

void ContentIndex::add(uint32_t entry) {
  uint64_t& slot = slots_[slot_of(scan_.sha[entry])];
  if (slot == 0) slot = 1 + old_count_ + entry;
}

uint64_t ContentIndex::find(const hash::Sha256& sha) const {
  const uint64_t slot = slots_[slot_of(sha)];
  if (slot == 0) return 0;
  return slot <= old_count_ ? old_->signature_offsets()[slot - 1]
                            : scan_.signatures[slot - 1 - old_count_];
}

// The slot that holds this content, or the free one where it belongs.
size_t ContentIndex::slot_of(const hash::Sha256& sha) const {
  size_t slot = 0;
  std::memcpy(&slot, sha.bytes.data(), sizeof(slot));  // A SHA-256 is its own hash.
  for (slot &= slots_.size() - 1; slots_[slot] != 0 && sha_at(slot) != sha;)
    slot = (slot + 1) & (slots_.size() - 1);
  return slot;
}

const hash::Sha256& ContentIndex::sha_at(size_t slot) const {
  const uint64_t entry = slots_[slot] - 1;
  return entry < old_count_ ? old_->sha()[entry] : scan_.sha[entry - old_count_];
}

// --- SignatureKeeper ---------------------------------------------------------------------------

SignatureKeeper::SignatureKeeper(Target target, const Catalog* old, Scan& scan)
    : target_(std::move(target)),
      old_(old),
      scan_(scan),
      pack_(target_.directory_fd, target_.level) {
  if (target_.level != 0 && old_ != nullptr && old_->header().pack != 0 &&
      old_->header().signature_level == target_.level && !old_->sha().empty()) {
    Result<SignaturePack> pack = SignaturePack::open(target_.directory_fd, old_->header().pack,
                                                     target_.level, old_->header().pack_bytes);
    if (pack) {
      pack_ = std::move(*pack);
      continues_old_ = true;
      return;
    }
    log_error("module {}: {}; signatures are made anew", escape(target_.module),
              pack.error().message);
  }
  std::fill(scan_.signatures.begin(), scan_.signatures.end(), 0);
}

SignatureKeeper::~SignatureKeeper() {
  if (pack_.number() != 0 && pack_.size_bytes() == kPackHeaderBytes) pack_.remove();
}

bool SignatureKeeper::lacks(uint32_t entry) const {
  const tree::Record& record = scan_.table.view().record(entry);
  return record.is_file() && !record.is_hard_link() && scan_.signatures[entry] == 0 &&
         wants(record.size_bytes);
}

void SignatureKeeper::begin(const Journal& journal) {
  if (target_.level == 0) return;
  if (!continues_old_ && journal.last_pack() != 0) {
    // One that does not fit is passed over in silence: nothing is lost that a generation names.
    Result<SignaturePack> pack = SignaturePack::open(target_.directory_fd, journal.last_pack(),
                                                     target_.level, kPackHeaderBytes);
    if (pack) pack_ = std::move(*pack);
  }
  const uint32_t old_count = continues_old_ ? old_->table().count() : 0;
  size_t entries = 0;
  for (uint32_t entry = 0; entry < old_count; ++entry)
    entries += old_->signature_offsets()[entry] != 0 ? 1 : 0;
  for (uint32_t entry = 0; entry < scan_.table.count(); ++entry)
    entries += scan_.table.view().record(entry).is_file() && scan_.signatures[entry] == 0 ? 1 : 0;
  index_ = std::make_unique<ContentIndex>(continues_old_ ? old_ : nullptr, scan_, entries);
  for (uint32_t entry = 0; entry < old_count; ++entry) {
    if (old_->sha()[entry].known() && old_->signature(entry)) index_->add_old(entry);
  }
}

Content SignatureKeeper::content_of(uint32_t entry) const {
  return {.sha = scan_.sha[entry], .size_bytes = scan_.table.view().record(entry).size_bytes};
}

void SignatureKeeper::enter(uint32_t entry, uint64_t offset) {
  scan_.signatures[entry] = offset;
  index_->add(entry);
}

void SignatureKeeper::take(uint32_t entry, const JournalRecord& record) {
  if (!lacks(entry) || record.pack == 0 || record.pack != pack_.number()) return;
  if (pack_.holds(record.signature, content_of(entry))) enter(entry, record.signature);
}

bool SignatureKeeper::find(uint32_t entry) {
  if (!index_ || !lacks(entry) || !scan_.sha[entry].known()) return false;
  scan_.signatures[entry] = index_->find(scan_.sha[entry]);
  return scan_.signatures[entry] != 0;
}

bool SignatureKeeper::make_room(std::span<const uint32_t> files) {
  uint64_t bytes = 0;
  for (const uint32_t entry : files)
    bytes += kPackChecksumBytes + pack_.layout(content_of(entry)).size_bytes();
  const Status made = pack_.make_room(bytes);
  if (made) return true;
  log_warning("module {}: {}; {} files stay without a signature until there is",
              escape(target_.module), made.error().message, files.size());
  return false;
}

uint64_t SignatureKeeper::keep(uint32_t entry, const Content& content, ByteView sums) {
  const std::lock_guard lock(mutex_);
  if (const uint64_t found = index_->find(content.sha); found != 0) return found;
  const Result<uint64_t> offset = pack_.append(content, sums);
  if (!offset) {
    log_failure();
    return 0;
  }
  enter(entry, *offset);
  return *offset;
}

uint64_t SignatureKeeper::reserve(const delta::SignatureLayout& layout) {
  const std::lock_guard lock(mutex_);
  const Result<uint64_t> offset = pack_.reserve(layout);
  if (offset) return *offset;
  log_failure();
  return 0;
}

uint64_t SignatureKeeper::keep_reserved(uint32_t entry, const Content& content, uint64_t offset) {
  const auto find_or_release = [&] {
    const uint64_t found = index_->find(content.sha);
    if (found != 0) pack_.release(offset, pack_.layout(content));
    return found;
  };
  {
    const std::lock_guard lock(mutex_);
    if (const uint64_t found = find_or_release(); found != 0) return found;
  }
  const Status finished = pack_.finish(offset, content);
  const std::lock_guard lock(mutex_);
  if (!finished) {
    pack_.fail_with(finished.error());
    log_failure();
    return 0;
  }
  // Another thread may have read a file of the same content.
  if (const uint64_t found = find_or_release(); found != 0) return found;
  enter(entry, offset);
  return offset;
}

void SignatureKeeper::release(uint64_t offset, const delta::SignatureLayout& layout) {
  const std::lock_guard lock(mutex_);
  pack_.release(offset, layout);
}

void SignatureKeeper::fail_with(const Error& error) {
  const std::lock_guard lock(mutex_);
  pack_.fail_with(error);
  log_failure();
}

void SignatureKeeper::log_failure() {
  const std::optional<Error>& failure = pack_.failure();
  if (failure_logged_ || !failure) return;
  failure_logged_ = true;
  log_error("module {}: {}; the rest of this pass makes no signatures", escape(target_.module),
            failure->message);
}

SignatureKeeper::Summary SignatureKeeper::settle() {
  if (target_.level == 0) return {};
  index_.reset();
  pack_.settle();
  log_failure();
  for (uint64_t& offset : scan_.signatures) {
    if (offset >= pack_.lost_from()) offset = 0;
  }
  std::vector<Live> live = live_signatures();
  if (live.empty()) return {};
  collect_garbage(live);
  Summary out{.pack = pack_.number(),
              .pack_bytes = pack_.size_bytes(),
              .signature_bytes = 0,
              .level = target_.level};
  for (const Live& one : live)
    out.signature_bytes += kPackChecksumBytes + pack_.layout(content_of(one.entry)).size_bytes();
  out.signature_bytes = std::min(out.signature_bytes, out.pack_bytes);
  return out;
}

bool SignatureKeeper::take_back() {
  if (!pack_.take_back()) return false;
  for (uint64_t& offset : scan_.signatures) {
    if (offset >= pack_.size_bytes()) offset = 0;
  }
  return true;
}

void SignatureKeeper::flush() {
  const std::lock_guard lock(mutex_);
  pack_.flush();
  log_failure();
}

// Each place in use once, ascending.
std::vector<SignatureKeeper::Live> SignatureKeeper::live_signatures() const {
  std::vector<Live> live;
  for (uint32_t entry = 0; entry < scan_.table.count(); ++entry) {
    if (scan_.signatures[entry] == 0 || scan_.table.view().record(entry).is_hard_link()) continue;
    live.push_back({.offset = scan_.signatures[entry], .entry = entry});
  }
  std::sort(live.begin(), live.end(), [](const Live& a, const Live& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.entry < b.entry;
  });
  const auto same = [](const Live& a, const Live& b) { return a.offset == b.offset; };
  live.erase(std::unique(live.begin(), live.end(), same), live.end());
  return live;
}

// Copies what is live into a new pack where too much of this one is not. A signature that turns out
// to be damaged on the way stays behind, and the next pass makes it again.
void SignatureKeeper::collect_garbage(std::vector<Live>& live) {
  uint64_t used = kPackHeaderBytes;
  for (const Live& one : live)
    used += kPackChecksumBytes + pack_.layout(content_of(one.entry)).size_bytes();
  const uint64_t total = pack_.size_bytes();
  if (used >= total || total - used < kLeastGarbageBytes || total - used <= total / 4) return;

  SignaturePack fresh(target_.directory_fd, target_.level);
  // As much again stays free, so that the generation finds room beside the two packs.
  if (!fresh.make_room(2 * used)) {
    fresh.remove();
    return;
  }
  uint64_t damaged = 0;
  for (Live& one : live) {
    const Result<std::optional<uint64_t>> copied =
        fresh.copy(pack_, one.offset, content_of(one.entry));
    if (!copied) {
      fresh.fail_with(copied.error());
      break;
    }
    one.moved_to = copied->value_or(0);
    damaged += *copied ? 0 : 1;
  }
  if (!fresh.failure()) fresh.settle();
  if (const std::optional<Error>& failure = fresh.failure(); failure) {
    log_warning("module {}: {}; the old pack stays, {} bytes of it unused", escape(target_.module),
                failure->message, total - used);
    fresh.remove();
    return;
  }
  if (damaged > 0) {
    log_warning("module {}: {} damaged signatures are made again by the next pass",
                escape(target_.module), damaged);
  }
  for (uint64_t& offset : scan_.signatures) {
    if (offset == 0) continue;
    const auto found =
        std::lower_bound(live.begin(), live.end(), offset,
                         [](const Live& one, uint64_t wanted) { return one.offset < wanted; });
    CHECK(found != live.end() && found->offset == offset);
    offset = found->moved_to;
  }
  pack_ = std::move(fresh);
  continues_old_ = false;
  live = live_signatures();
}

// --- FileSigner --------------------------------------------------------------------------------

void FileSigner::begin(uint64_t file_bytes) {
  abandon();
  if (!keeper_.wants(file_bytes)) return;
  layout_ = keeper_.pack_to_write().layout({.sha = {}, .size_bytes = file_bytes});
  reserved_ = 0;
  if (layout_.size_bytes() <= SignaturePack::kSmallBytes) {
    small_.resize(layout_.size_bytes());
  } else {
    reserved_ = keeper_.reserve(layout_);
    if (reserved_ == 0) return;
  }
  file_bytes_ = file_bytes;
  active_ = true;
  builder_.begin(layout_,
                 [this](unsigned level, uint64_t first, std::span<const delta::BlockSum> sums) {
                   return take(level, first, sums);
                 });
}

void FileSigner::update(ByteView bytes) {
  if (!active_) return;
  if (const Status taken = builder_.update(bytes); !taken) fail_with(taken.error());
}

Status FileSigner::take(unsigned level, uint64_t first, std::span<const delta::BlockSum> sums) {
  const uint64_t at = layout_.offset_of(level, first);
  if (reserved_ != 0) return keeper_.pack_to_write().write(reserved_ + at, stored(sums));
  const ByteView bytes = stored(sums);
  CHECK(at + bytes.size() <= small_.size());
  std::copy(bytes.begin(), bytes.end(), small_.begin() + static_cast<ptrdiff_t>(at));
  return {};
}

uint64_t FileSigner::finish(uint32_t entry, const hash::Sha256& sha) {
  if (!active_) return 0;
  if (const Status finished = builder_.finish(); !finished) {
    fail_with(finished.error());
    return 0;
  }
  active_ = false;
  const Content content{.sha = sha, .size_bytes = file_bytes_};
  return reserved_ == 0 ? keeper_.keep(entry, content, small_)
                        : keeper_.keep_reserved(entry, content, reserved_);
}

void FileSigner::abandon() {
  if (active_ && reserved_ != 0) keeper_.release(reserved_, layout_);
  active_ = false;
}

void FileSigner::fail_with(const Error& error) {
  keeper_.fail_with(error);
  abandon();
}

}  // namespace superlifter::catalog
