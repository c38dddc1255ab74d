// See segment.h.
#include "core/shm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "core/base/check.h"

namespace superlifter::shm {
namespace {

constexpr uint64_t kMagic = 0x6d68'7374'666c'7073;  // "splftshm", read as little-endian.

size_t segment_bytes(uint32_t row_count) {
  return sizeof(SegmentHeader) + size_t{row_count} * sizeof(ConnectionRow);
}

uint64_t load_big_endian(const uint8_t* bytes) {
  uint64_t value = 0;
  for (int i = 0; i < 8; ++i)
    value = value << 8 | bytes[i];
  return value;
}

}  // namespace

Result<Segment> Segment::map(UniqueFd fd, size_t size_bytes) {
  void* const start = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (start == MAP_FAILED) return fail_errno(errno, "map the shared segment");
  Segment segment;
  segment.fd_ = std::move(fd);
  segment.size_bytes_ = size_bytes;
  segment.header_ = static_cast<SegmentHeader*>(start);
  return segment;
}

Result<Segment> Segment::create(uint32_t row_count) {
  CHECK(row_count >= 1 && row_count <= kMaxRows);
  UniqueFd fd(memfd_create("superlifter-segment", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return fail_errno(errno, "make the shared segment");
  const size_t size_bytes = segment_bytes(row_count);
  if (ftruncate(fd.get(), static_cast<off_t>(size_bytes)) != 0) {
    return fail_errno(errno, "size the shared segment");
  }
  // A process that shrank it would kill the others with SIGBUS.
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return fail_errno(errno, "seal the shared segment");
  }
  Result<Segment> segment = map(std::move(fd), size_bytes);
  if (!segment) return segment;
  segment->header_ = std::construct_at(segment->header_);
  auto* const first = reinterpret_cast<ConnectionRow*>(segment->header_ + 1);
  for (uint32_t i = 0; i < row_count; ++i)
    std::construct_at(first + i);
  segment->rows_ = {first, row_count};
  segment->header_->row_count = row_count;
  segment->header_->row_bytes = sizeof(ConnectionRow);
  segment->header_->layout_version = kLayoutVersion;
  segment->header_->magic = kMagic;
  return segment;
}

Result<Segment> Segment::attach(UniqueFd fd) {
  struct stat status{};
  if (fstat(fd.get(), &status) != 0) return fail_errno(errno, "look at the shared segment");
  const auto size_bytes = static_cast<uint64_t>(status.st_size);
  if (!S_ISREG(status.st_mode) || size_bytes < sizeof(SegmentHeader)) {
    return fail(Errc::kCorrupt, "the shared segment is too short for its header");
  }
  Result<Segment> segment = map(std::move(fd), static_cast<size_t>(size_bytes));
  if (!segment) return segment;
  // The objects were made by the master's create(); this process sees the same bytes.
  segment->header_ = std::launder(segment->header_);
  const SegmentHeader& header = *segment->header_;
  if (header.magic != kMagic) return fail(Errc::kCorrupt, "the shared segment has no such magic");
  if (header.layout_version != kLayoutVersion) {
    return fail(Errc::kUnsupported, "the shared segment has layout " +
                                        std::to_string(header.layout_version) + ", expected " +
                                        std::to_string(kLayoutVersion));
  }
  if (header.row_count < 1 || header.row_count > kMaxRows ||
      header.row_bytes != sizeof(ConnectionRow) || segment_bytes(header.row_count) != size_bytes) {
    return fail(Errc::kCorrupt, "the shared segment's size does not fit its header");
  }
  auto* const first = std::launder(reinterpret_cast<ConnectionRow*>(segment->header_ + 1));
  segment->rows_ = {first, header.row_count};
  return segment;
}

Segment::Segment(Segment&& other) noexcept
    : fd_(std::move(other.fd_)),
      header_(std::exchange(other.header_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)),
      rows_(std::exchange(other.rows_, {})) {}

Segment& Segment::operator=(Segment&& other) noexcept {
  if (this != &other) {
    unmap();
    fd_ = std::move(other.fd_);
    header_ = std::exchange(other.header_, nullptr);
    size_bytes_ = std::exchange(other.size_bytes_, 0);
    rows_ = std::exchange(other.rows_, {});
  }
  return *this;
}

Segment::~Segment() {
  unmap();
}

void Segment::unmap() {
  if (header_ != nullptr) munmap(std::exchange(header_, nullptr), size_bytes_);
}

RowSnapshot snapshot(const ConnectionRow& row) {
  RowSnapshot plain;
  plain.worker = row.claim.load(std::memory_order_relaxed) >> 8;
  plain.pid = row.pid.load(std::memory_order_relaxed);
  const std::array<uint64_t, 2> halves = {row.address_high.load(std::memory_order_relaxed),
                                          row.address_low.load(std::memory_order_relaxed)};
  for (size_t i = 0; i < plain.address.size(); ++i) {
    plain.address[i] = static_cast<uint8_t>(halves[i / 8] >> (56 - 8 * (i % 8)));
  }
  std::array<uint8_t, 32> text{};
  for (size_t i = 0; i < text.size(); ++i) {
    const uint64_t word = row.module_text[i / 8].load(std::memory_order_relaxed);
    text[i] = static_cast<uint8_t>(word >> (56 - 8 * (i % 8)));
  }
  const auto* const chars = reinterpret_cast<const char*>(text.data());
  plain.module.assign(chars, strnlen(chars, text.size()));
  plain.bytes_sent = row.bytes_sent.load(std::memory_order_relaxed);
  plain.bytes_received = row.bytes_received.load(std::memory_order_relaxed);
  plain.started_ms = row.started_ms.load(std::memory_order_relaxed);
  return plain;
}

void set_module(ConnectionRow& row, std::string_view name) {
  std::array<uint8_t, 32> text{};
  std::copy_n(name.begin(), std::min(name.size(), text.size()), text.begin());
  for (size_t i = 0; i < row.module_text.size(); ++i) {
    row.module_text[i].store(load_big_endian(text.data() + 8 * i), std::memory_order_relaxed);
  }
  // Last, and with a full order: the limiter counts by it.
  row.module_hash.store(module_hash(name), std::memory_order_seq_cst);
}

// FNV-1a, 64 bits (Fowler, Noll, Vo): names come from the configuration, so nobody picks
// collisions.
uint64_t module_hash(std::string_view name) {
  if (name.empty()) return 0;
  uint64_t hash = 0xcbf2'9ce4'8422'2325;
  for (const char byte : name) {
    hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100'0000'01b3;
  }
  return hash != 0 ? hash : 1;
}

}  // namespace superlifter::shm
