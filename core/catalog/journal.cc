#include "core/catalog/journal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <tuple>

#include "core/base/check.h"
#include "core/base/coding.h"
#include "core/base/log.h"

namespace superlifter::catalog {
namespace {

constexpr const char* kJournalName = "digests.journal";
constexpr std::string_view kJournalMagic = "superlgj";
constexpr uint32_t kJournalVersion = 2;
constexpr size_t kJournalHeaderBytes = 16;
constexpr size_t kJournalRecordBytes = 120;
constexpr size_t kChecksumAt = kJournalRecordBytes - 8;
// A batch: what a kill can cost is the hashing of 500 files.
constexpr size_t kBatchBytes = 64 << 10;

Bytes encode_header() {
  Bytes out;
  Writer writer(out);
  writer.bytes(as_bytes(kJournalMagic));  // [journal-magic]
  writer.u32(kJournalVersion);            // [journal-version]
  writer.u32(0);                          // [journal-header-reserved]
  CHECK(out.size() == kJournalHeaderBytes);
  return out;
}

void encode(const JournalRecord& record, Bytes& out) {
  const size_t begin = out.size();
  Writer writer(out);
  writer.u64(record.device);                              // [journal-device]
  writer.u64(record.validators.inode);                    // [journal-inode]
  writer.u64(record.validators.size_bytes);               // [journal-size]
  writer.i64(record.validators.mtime_s);                  // [journal-mtime]
  writer.i64(record.validators.ctime_s);                  // [journal-ctime]
  writer.u32(record.validators.mtime_ns);                 // [journal-mtime-ns]
  writer.u32(record.validators.ctime_ns);                 // [journal-ctime-ns]
  writer.bytes(record.xxh.bytes);                         // [journal-xxh]
  writer.bytes(record.sha.bytes);                         // [journal-sha]
  writer.u64(record.pack);                                // [journal-pack]
  writer.u64(record.signature);                           // [journal-signature]
  writer.u64(hash::xxh64(ByteView(out).subspan(begin)));  // [journal-checksum]
  CHECK(out.size() - begin == kJournalRecordBytes);
}

// REQUIRES: `bytes` is one record.
JournalRecord decode(ByteView bytes) {
  Reader reader(bytes);
  JournalRecord out;
  out.device = reader.u64();                                // [journal-device]
  out.validators.inode = reader.u64();                      // [journal-inode]
  out.validators.size_bytes = reader.u64();                 // [journal-size]
  out.validators.mtime_s = reader.i64();                    // [journal-mtime]
  out.validators.ctime_s = reader.i64();                    // [journal-ctime]
  out.validators.mtime_ns = reader.u32();                   // [journal-mtime-ns]
  out.validators.ctime_ns = reader.u32();                   // [journal-ctime-ns]
  const ByteView xxh = reader.bytes(out.xxh.bytes.size());  // [journal-xxh]
  const ByteView sha = reader.bytes(out.sha.bytes.size());  // [journal-sha]
  out.pack = reader.u64();                                  // [journal-pack]
  out.signature = reader.u64();                             // [journal-signature]
  CHECK(reader.ok());
  std::copy(xxh.begin(), xxh.end(), out.xxh.bytes.begin());
  std::copy(sha.begin(), sha.end(), out.sha.bytes.begin());
  return out;
}

bool is_sound(ByteView record) {
  Reader reader(record.subspan(kChecksumAt));
  return reader.u64() == hash::xxh64(record.first(kChecksumAt));  // [journal-checksum]
}

// [journal-magic], [journal-version] and [journal-header-reserved] are as this version writes them.
bool begins_as_ours(ByteView file) {
  const Bytes header = encode_header();
  return file.size() >= header.size() && std::equal(header.begin(), header.end(), file.begin());
}

}  // namespace

Result<Journal> Journal::open(int directory_fd) {
  Journal out;
  out.directory_fd_ = directory_fd;
  const UniqueFd fd(::openat(directory_fd, kJournalName, O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  if (!fd && errno == ENOENT) return out;
  if (!fd) return fail_errno(errno, std::string("open ") + kJournalName);
  Result<fs::MappedFile> file = fs::MappedFile::map(fd.get());
  if (!file) return fail_in(kJournalName, file.error());
  if (!begins_as_ours(file->bytes())) {
    log_warning("{}: not a journal of this version; files are hashed again", kJournalName);
    out.remove();
    return out;
  }
  out.exists_ = true;
  // Cut a torn record off, so that the next one begins where a record begins. The map keeps to
  // whole ones.
  const size_t size = file->bytes().size();
  const size_t torn = (size - kJournalHeaderBytes) % kJournalRecordBytes;
  if (torn != 0 && ::ftruncate(fd.get(), static_cast<off_t>(size - torn)) != 0) {
    return fail_errno(errno, std::string("truncate ") + kJournalName);
  }
  out.file_ = std::move(*file);
  const size_t count = (size - kJournalHeaderBytes) / kJournalRecordBytes;
  if (count > UINT32_MAX) return fail(Errc::kLimit, std::string(kJournalName) + ": too long");
  for (size_t i = 0; i < count; ++i) {
    if (!is_sound(out.record_bytes(i))) continue;
    out.order_.push_back(static_cast<uint32_t>(i));
    if (const uint64_t pack = decode(out.record_bytes(i)).pack; pack != 0) out.last_pack_ = pack;
  }
  const auto key = [&out](uint32_t i) {
    const JournalRecord record = decode(out.record_bytes(i));
    return std::make_tuple(record.device, record.validators.inode);
  };
  // Latest first among records of one file, then one of each is kept.
  std::sort(out.order_.begin(), out.order_.end(), [&](uint32_t a, uint32_t b) {
    const auto key_a = key(a);
    const auto key_b = key(b);
    return key_a != key_b ? key_a < key_b : a > b;
  });
  const auto end = std::unique(out.order_.begin(), out.order_.end(),
                               [&](uint32_t a, uint32_t b) { return key(a) == key(b); });
  out.order_.erase(end, out.order_.end());
  return out;
}

std::optional<JournalRecord> Journal::find(uint64_t device, const Validators& validators) const {
  const auto wanted = std::make_tuple(device, validators.inode);
  const auto found =
      std::lower_bound(order_.begin(), order_.end(), wanted, [this](uint32_t i, const auto& key) {
        const JournalRecord record = decode(record_bytes(i));
        return std::make_tuple(record.device, record.validators.inode) < key;
      });
  if (found == order_.end()) return std::nullopt;
  const JournalRecord record = decode(record_bytes(*found));
  if (record.device != device || record.validators != validators) return std::nullopt;
  return record;
}

void Journal::append(const JournalRecord& record) {
  const std::lock_guard lock(*mutex_);
  encode(record, pending_);
  if (pending_.size() >= kBatchBytes) write_out(pending_);
}

void Journal::flush() {
  const std::lock_guard lock(*mutex_);
  write_out(pending_);
}

void Journal::write_out(Bytes& pending) {
  if (pending.empty()) return;
  int failure = broken_ ? -1 : 0;
  if (failure == 0 && !out_) {
    out_ = UniqueFd(::openat(directory_fd_, kJournalName,
                             O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!out_) failure = errno;
    if (out_ && !exists_) {
      const Bytes header = encode_header();
      pending.insert(pending.begin(), header.begin(), header.end());
      exists_ = true;
    }
  }
  for (size_t at = 0; failure == 0 && at < pending.size();) {
    const ssize_t written = ::write(out_.get(), pending.data() + at, pending.size() - at);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      failure = errno;
      break;
    }
    at += static_cast<size_t>(written);
  }
  if (failure > 0) {
    log_warning("{}: write: {}; an interrupted hashing will begin again", kJournalName,
                std::strerror(failure));
    broken_ = true;
  }
  pending.clear();
}

void Journal::remove() {
  const std::lock_guard lock(*mutex_);
  pending_.clear();
  out_.reset();
  if (::unlinkat(directory_fd_, kJournalName, 0) != 0 && errno != ENOENT) {
    log_warning("remove {}: {}", kJournalName, std::strerror(errno));
  }
  exists_ = false;
}

ByteView Journal::record_bytes(size_t index) const {
  return file_.bytes().subspan(kJournalHeaderBytes + index * kJournalRecordBytes,
                               kJournalRecordBytes);
}

}  // namespace superlifter::catalog
