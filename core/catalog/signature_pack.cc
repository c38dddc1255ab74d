#include "core/catalog/signature_pack.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

#include "core/base/check.h"
#include "core/base/coding.h"
#include "core/base/log.h"
#include "core/catalog/file_names.h"
#include "core/catalog/format.h"

namespace superlifter::catalog {
namespace {

constexpr size_t kChunkBytes = 64 << 10;
constexpr unsigned kCoarsestFinestLevel = 16;
// All levels together are at most 4/3 of the finest, and garbage is at most a quarter of the pack
// (FORMAT.md section 5), so 4/3 of what is used.
constexpr double kLevelsAndGarbage = 16.0 / 9.0;
// Left to others where the file system cannot set room aside.
constexpr uint64_t kSpareBytes = 1 << 20;

Bytes encode_pack_header(uint64_t number, unsigned level) {
  Bytes out;
  Writer writer(out);
  writer.bytes(as_bytes(kPackMagic));  // [pack-magic]
  writer.u32(kPackVersion);            // [pack-version]
  writer.u32(level);                   // [pack-level]
  writer.u64(number);                  // [pack-number]
  writer.u64(hash::xxh64(out));        // [pack-header-checksum]
  CHECK(out.size() == kPackHeaderBytes);
  return out;
}

// Whether a file begins as the pack that is wanted: reads [pack-magic] [pack-version] [pack-level]
// [pack-number] [pack-header-checksum], which follow from what is wanted.
bool check_pack_header(ByteView header, uint64_t number, unsigned level) {
  const Bytes wanted = encode_pack_header(number, level);
  return header.size() == wanted.size() && std::equal(wanted.begin(), wanted.end(), header.begin());
}

// As many of the bytes as there are, from `at` on.
Result<size_t> read_at(int fd, uint64_t at, MutableBytes out) {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t size =
        ::pread(fd, out.data() + done, out.size() - done, static_cast<off_t>(at + done));
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return fail_errno(errno, "read");
    if (size == 0) break;
    done += static_cast<size_t>(size);
  }
  return done;
}

Status write_at(int fd, uint64_t at, ByteView bytes) {
  while (!bytes.empty()) {
    const ssize_t size = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return fail_errno(errno, "write");
    at += static_cast<size_t>(size);
    bytes = bytes.subspan(static_cast<size_t>(size));
  }
  return {};
}

// [pack-checksum] over [pack-sums], fed in pieces.
class Checksum {
 public:
  void add(ByteView sums) { hasher_.update(sums); }
  std::array<uint8_t, kPackChecksumBytes> finish(const Content& content) {
    Bytes tail;
    Writer writer(tail);
    writer.bytes(content.sha.bytes);
    writer.u64(content.size_bytes);
    hasher_.update(tail);
    const hash::Xxh128 digest = hasher_.digest();
    std::array<uint8_t, kPackChecksumBytes> out{};
    std::copy_n(digest.bytes.begin(), out.size(), out.begin());
    return out;
  }

 private:
  hash::Xxh128Hasher hasher_;
};

Result<UniqueFd> open_pack_file(int directory_fd, uint64_t number, unsigned level, int flags,
                                uint64_t least_bytes) {
  const std::string name = pack_file_name(number);
  int fd = -1;
  do {
    fd = ::openat(directory_fd, name.c_str(), flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  } while (fd < 0 && errno == EINTR);
  UniqueFd out(fd);
  if (!out) return fail_errno(errno, name);
  struct stat stat{};
  if (::fstat(fd, &stat) != 0) return fail_errno(errno, name + ": stat");
  if (!S_ISREG(stat.st_mode)) return fail(Errc::kCorrupt, name + ": not a regular file");
  std::array<uint8_t, kPackHeaderBytes> header{};
  const Result<size_t> size = read_at(fd, 0, header);
  if (!size) return fail_in(name, size.error());
  if (!check_pack_header(ByteView(header).first(*size), number, level)) {
    return fail(Errc::kCorrupt, name + ": does not begin as pack " + std::to_string(number) +
                                    " of level " + std::to_string(level) + " should");
  }
  if (static_cast<uint64_t>(stat.st_size) < least_bytes) {
    return fail(Errc::kCorrupt, name + ": has " + std::to_string(stat.st_size) +
                                    " bytes, but should have " + std::to_string(least_bytes));
  }
  return out;
}

}  // namespace

unsigned signature_level_within(double share) {
  for (unsigned level = delta::kLeafLevel; level <= kCoarsestFinestLevel;
       level += delta::kLevelStep) {
    const double cost = sizeof(delta::BlockSum) * kLevelsAndGarbage /
                        static_cast<double>(delta::block_length_bytes(level));
    if (cost <= share) return level;
  }
  return 0;
}

Result<UniqueFd> open_pack(int directory_fd, uint64_t number, unsigned level,
                           uint64_t least_bytes) {
  return open_pack_file(directory_fd, number, level, O_RDONLY, least_bytes);
}

SignaturePack::SignaturePack(int directory_fd, unsigned level)
    : directory_fd_(directory_fd), level_(level) {}

Result<SignaturePack> SignaturePack::open(int directory_fd, uint64_t number, unsigned level,
                                          uint64_t least_bytes) {
  Result<UniqueFd> fd = open_pack_file(directory_fd, number, level, O_RDWR,
                                       std::max<uint64_t>(least_bytes, kPackHeaderBytes));
  if (!fd) return std::unexpected(fd.error());
  const off_t size = ::lseek(fd->get(), 0, SEEK_END);
  if (size < 0) return fail_errno(errno, pack_file_name(number) + ": seek to its end");
  SignaturePack out(directory_fd, level);
  out.number_ = number;
  out.fd_ = std::move(*fd);
  // Behind what any generation or journal names: a torn batch may be the last.
  out.end_ = (static_cast<uint64_t>(size) + kPackChecksumBytes - 1) / kPackChecksumBytes *
             kPackChecksumBytes;
  out.trusted_ = std::max<uint64_t>(least_bytes, kPackHeaderBytes);
  return out;
}

// Made with a number above all that are there, so that no older generation can mean it.
Status SignaturePack::create() {
  if (fd_) return {};
  const Result<fs::DirectoryNames> names = list_catalog(directory_fd_);
  if (!names) return std::unexpected(names.error());
  const uint64_t highest = highest_number(*names, kPackSuffix);
  if (highest == UINT64_MAX) return fail(Errc::kLimit, "no pack number is left");
  const uint64_t number = highest + 1;
  const std::string name = pack_file_name(number);
  UniqueFd fd(::openat(directory_fd_, name.c_str(),
                       O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
  if (!fd) return fail_errno(errno, name + ": create");
  Status made = write_at(fd.get(), 0, encode_pack_header(number, level_));
  // Whatever the umask: workers and stdio sessions of other users read this.
  if (made && ::fchmod(fd.get(), 0644) != 0) made = fail_errno(errno, "chmod");
  if (!made) {
    static_cast<void>(::unlinkat(directory_fd_, name.c_str(), 0));
    return fail_in(name, made.error());
  }
  number_ = number;
  fd_ = std::move(fd);
  end_ = kPackHeaderBytes;
  trusted_ = end_;
  return {};
}

std::string SignaturePack::named() const {
  return number_ != 0 ? pack_file_name(number_) : "a new pack of signatures";
}

Status SignaturePack::make_room(uint64_t bytes) {
  if (failure_) return std::unexpected(*failure_);
  if (const Status made = create(); !made) return made;
  const auto most = static_cast<uint64_t>(std::numeric_limits<off_t>::max());
  rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) != 0) limit.rlim_cur = RLIM_INFINITY;
  if (end_ > most || bytes > most - end_ ||
      (limit.rlim_cur != RLIM_INFINITY && end_ + bytes > limit.rlim_cur)) {
    return fail_errno(EFBIG, named() + ": make room for " + std::to_string(bytes) + " bytes");
  }
  if (bytes == 0) return {};
  int made = -1;
  do {
    made = ::fallocate(fd_.get(), FALLOC_FL_KEEP_SIZE, static_cast<off_t>(end_),
                       static_cast<off_t>(bytes));
  } while (made != 0 && errno == EINTR);
  if (made == 0) return {};
  int why = errno;
  if (why == EOPNOTSUPP || why == ENOSYS) {
    struct statvfs free{};
    if (::fstatvfs(fd_.get(), &free) != 0 ||
        free.f_bavail >= (bytes + kSpareBytes) / std::max<uint64_t>(1, free.f_frsize) + 1) {
      return {};
    }
    why = ENOSPC;
  }
  return fail_errno(why, named() + ": make room for " + std::to_string(bytes) + " bytes");
}

Result<uint64_t> SignaturePack::append(const Content& content, ByteView sums) {
  CHECK(sums.size() == layout(content).size_bytes());
  if (failure_) return std::unexpected(*failure_);
  if (const Status made = create(); !made) {
    fail_with(made.error());
    return std::unexpected(made.error());
  }
  Checksum checksum;
  checksum.add(sums);
  const std::array<uint8_t, kPackChecksumBytes> sum = checksum.finish(content);
  Writer writer(pending_);
  writer.bytes(sum);   // [pack-checksum]
  writer.bytes(sums);  // [pack-sums]
  const uint64_t offset = end_ + kPackChecksumBytes;
  end_ = offset + sums.size();
  if (pending_.size() >= kSmallBytes) {
    if (const Status written = write_pending(); !written) return std::unexpected(written.error());
  }
  return offset;
}

Status SignaturePack::write_pending() {
  if (failure_) return std::unexpected(*failure_);
  if (pending_.empty()) return {};
  const uint64_t at = end_ - pending_.size();
  const Status written = write_at(fd_.get(), at, pending_);
  pending_.clear();
  if (written) return {};
  // Whatever was reserved lies before the batch: reserve() writes it out first.
  end_ = at;
  lost_from_ = at;
  Error error = written.error();
  error.message = named() + ": " + error.message;
  fail_with(error);
  return std::unexpected(std::move(error));
}

Result<uint64_t> SignaturePack::reserve(const delta::SignatureLayout& layout) {
  if (failure_) return std::unexpected(*failure_);
  if (const Status made = create(); !made) {
    fail_with(made.error());
    return std::unexpected(made.error());
  }
  if (const Status written = write_pending(); !written) return std::unexpected(written.error());
  const uint64_t offset = end_ + kPackChecksumBytes;
  end_ = offset + layout.size_bytes();
  return offset;
}

Status SignaturePack::write(uint64_t at, ByteView bytes) const {
  const Status written = write_at(fd_.get(), at, bytes);  // [pack-sums]
  if (!written) return fail_in(named(), written.error());
  return {};
}

Status SignaturePack::finish(uint64_t offset, const Content& content) const {
  std::array<uint8_t, kPackChecksumBytes> checksum{};
  if (const Status read = checksum_of(offset, content, checksum); !read) return read;
  // [pack-checksum]; last of all, so that it cannot be right before the sums are there.
  const Status written = write_at(fd_.get(), offset - kPackChecksumBytes, checksum);
  if (!written) return fail_in(named(), written.error());
  return {};
}

void SignaturePack::release(uint64_t offset, const delta::SignatureLayout& layout) {
  gaps_[offset + layout.size_bytes()] = offset - kPackChecksumBytes;
  for (auto last = gaps_.find(end_); last != gaps_.end() && pending_.empty();
       last = gaps_.find(end_)) {
    end_ = last->second;
    gaps_.erase(last);
  }
}

void SignaturePack::fail_with(const Error& error) {
  if (!failure_) failure_ = error;
}

Status SignaturePack::checksum_of(uint64_t offset, const Content& content,
                                  std::array<uint8_t, 4>& checksum) const {
  Checksum out;
  Bytes buffer(kChunkBytes);
  for (uint64_t left = layout(content).size_bytes(); left > 0;) {
    const size_t part = std::min<uint64_t>(buffer.size(), left);
    const Result<size_t> size = read_at(fd_.get(), offset, MutableBytes(buffer).first(part));
    if (!size) return fail_in(named(), size.error());
    if (*size != part) return fail(Errc::kTruncated, named() + ": ends within a signature");
    out.add(ByteView(buffer).first(part));
    offset += part;
    left -= part;
  }
  checksum = out.finish(content);
  return {};
}

bool SignaturePack::holds(uint64_t offset, const Content& content) const {
  const uint64_t size = layout(content).size_bytes();
  if (!fd_ || offset < kPackHeaderBytes + kPackChecksumBytes || offset > end_ ||
      size > end_ - offset) {
    return false;
  }
  std::array<uint8_t, kPackChecksumBytes> wanted{};
  std::array<uint8_t, kPackChecksumBytes> stored{};
  // [pack-checksum], of [pack-sums]
  const Result<size_t> read = read_at(fd_.get(), offset - stored.size(), stored);
  return read && *read == stored.size() && checksum_of(offset, content, wanted) && stored == wanted;
}

Result<std::optional<uint64_t>> SignaturePack::copy(const SignaturePack& from, uint64_t offset,
                                                    const Content& content) {
  CHECK(from.level_ == level_);
  if (!from.holds(offset, content)) return std::nullopt;
  const delta::SignatureLayout layout = this->layout(content);
  const bool is_small = layout.size_bytes() <= kSmallBytes;
  Bytes buffer(std::min<uint64_t>(layout.size_bytes(), kChunkBytes));
  Result<uint64_t> to = is_small ? uint64_t{0} : reserve(layout);
  if (!to) return std::unexpected(to.error());
  for (uint64_t done = 0; done < layout.size_bytes();) {
    const size_t part = std::min<uint64_t>(buffer.size(), layout.size_bytes() - done);
    const Result<size_t> size =
        read_at(from.fd_.get(), offset + done, MutableBytes(buffer).first(part));
    if (!size || *size != part) {
      if (!is_small) release(*to, layout);
      return std::nullopt;
    }
    if (is_small) break;  // The buffer holds all of it.
    if (const Status written = write(*to + done, ByteView(buffer).first(part)); !written) {
      return std::unexpected(written.error());
    }
    done += part;
  }
  if (is_small) {
    to = append(content, buffer);
  } else if (const Status finished = finish(*to, content); !finished) {
    return std::unexpected(finished.error());
  }
  if (!to) return std::unexpected(to.error());
  return *to;
}

void SignaturePack::settle() {
  if (!fd_) return;
  static_cast<void>(write_pending());
  int failed = ::ftruncate(fd_.get(), static_cast<off_t>(end_)) != 0 ? errno : 0;
  if (failed == 0 && ::fdatasync(fd_.get()) != 0) failed = errno;
  if (failed == 0) return;
  // Nobody knows what has reached the disk.
  lost_from_ = trusted_;
  end_ = trusted_;
  fail_with(Error{Errc::kIo, failed, named() + ": sync: " + std::strerror(failed)});
}

void SignaturePack::flush() {
  if (!fd_) return;
  static_cast<void>(write_pending());  // A failure is remembered.
  // Places that were released may have been written to. What stays behind is garbage, no more.
  static_cast<void>(::ftruncate(fd_.get(), static_cast<off_t>(end_)));
}

bool SignaturePack::take_back() {
  if (!fd_ || end_ <= trusted_) return false;
  if (trusted_ == kPackHeaderBytes) {
    remove();
    return true;
  }
  pending_.clear();
  gaps_.clear();
  end_ = trusted_;
  return ::ftruncate(fd_.get(), static_cast<off_t>(end_)) == 0;
}

void SignaturePack::remove() {
  if (!fd_) return;
  const std::string name = pack_file_name(number_);
  fd_.reset();
  number_ = 0;
  end_ = 0;
  trusted_ = 0;
  pending_.clear();
  gaps_.clear();
  if (::unlinkat(directory_fd_, name.c_str(), 0) != 0 && errno != ENOENT) {
    log_warning("catalog: remove {}: {}", name, std::strerror(errno));
  }
}

}  // namespace superlifter::catalog
