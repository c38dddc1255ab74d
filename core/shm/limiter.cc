// See limiter.h. Memory order: claims are read and written sequentially consistent, because the
// proof
// ("of two tentative claims, one is seen by the other") is about two stores and two loads on
// different rows, which weaker orders allow to pass each other. A row that is still being filled
// need not be counted: its owner has not counted yet either, and will see ours.
#include "core/shm/limiter.h"

#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>

#include "core/base/clock.h"

namespace superlifter::shm {
namespace {

constexpr int kAttempts = 8;  // When two step back for each other.
constexpr uint32_t kStateMask = 0xFF;

uint32_t claim_of(uint32_t worker, RowState state) {
  return worker << 8 | static_cast<uint32_t>(state);
}
RowState state_of(uint32_t claim) {
  return static_cast<RowState>(claim & kStateMask);
}

struct AddressHalves {
  uint64_t high = 0;
  uint64_t low = 0;

  bool is_v4() const { return high == 0 && low >> 32 == 0xFFFF; }
  // The same client, as far as limits go: an IPv6 subscriber has a /64.
  bool same_client(const AddressHalves& other) const {
    return high == other.high && (low == other.low || (!is_v4() && !other.is_v4()));
  }
};

AddressHalves halves_of(const std::array<uint8_t, 16>& address) {
  AddressHalves halves;
  for (size_t i = 0; i < 8; ++i)
    halves.high = halves.high << 8 | address[i];
  for (size_t i = 8; i < 16; ++i)
    halves.low = halves.low << 8 | address[i];
  return halves;
}

AddressHalves halves_of(const ConnectionRow& row) {
  return {row.address_high.load(std::memory_order_relaxed),
          row.address_low.load(std::memory_order_relaxed)};
}

// The rows that were ever in use.
std::span<ConnectionRow> used_rows(const Segment& segment) {
  const uint32_t used = segment.header().rows_used.load(std::memory_order_seq_cst);
  return segment.rows().first(std::min<size_t>(used, segment.rows().size()));
}

// Claims a free row, to be filled; null when there is none.
ConnectionRow* claim_row(const Segment& segment, uint32_t worker) {
  const std::span<ConnectionRow> rows = segment.rows();
  std::atomic<uint32_t>& rows_used = segment.header().rows_used;
  for (uint32_t i = 0; i < rows.size(); ++i) {
    uint32_t expected = 0;
    if (rows[i].claim.load(std::memory_order_relaxed) != 0) continue;
    // Before the claim, so that a row in use is never outside of what is counted.
    uint32_t used = rows_used.load(std::memory_order_seq_cst);
    while (used <= i && !rows_used.compare_exchange_weak(used, i + 1)) {
    }
    if (rows[i].claim.compare_exchange_strong(expected, claim_of(worker, RowState::kFilling))) {
      return &rows[i];
    }
  }
  return nullptr;
}

}  // namespace

Admission::Admission(Admission&& other) noexcept : row_(std::exchange(other.row_, nullptr)) {}

Admission& Admission::operator=(Admission&& other) noexcept {
  if (this != &other) {
    release();
    row_ = std::exchange(other.row_, nullptr);
  }
  return *this;
}

void Admission::release() {
  if (row_ == nullptr) return;
  ConnectionRow& row = *std::exchange(row_, nullptr);
  row.module_hash.store(0, std::memory_order_seq_cst);
  row.claim.store(0, std::memory_order_seq_cst);
}

Limiter::Verdict Limiter::judge(const ConnectionRow& own) const {
  const AddressHalves mine = halves_of(own);
  uint64_t live = 0;
  uint64_t tentative = 0;
  uint64_t live_here = 0;
  uint64_t tentative_here = 0;
  for (const ConnectionRow& row : used_rows(segment_)) {
    if (&row == &own) continue;
    const uint32_t claim = row.claim.load(std::memory_order_seq_cst);
    switch (state_of(claim)) {
      case RowState::kLive:
        ++live;
        if (halves_of(row).same_client(mine)) ++live_here;
        break;
      case RowState::kTentative:
        ++tentative;
        if (halves_of(row).same_client(mine)) ++tentative_here;
        break;
      default:
        break;
    }
  }
  const uint64_t most = limits_.connections == 0 ? segment_.rows().size() : limits_.connections;
  const uint64_t most_here =
      limits_.connections_per_address == 0 ? most : limits_.connections_per_address;
  if (live + 1 > most || live_here + 1 > most_here) return Verdict::kRefused;
  if (live + tentative + 1 > most || live_here + tentative_here + 1 > most_here) {
    return Verdict::kCrowded;
  }
  return Verdict::kAdmitted;
}

Result<Admission> Limiter::admit(const std::array<uint8_t, 16>& address, uint32_t worker) const {
  const AddressHalves halves = halves_of(address);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    ConnectionRow* const row = claim_row(segment_, worker);
    if (row == nullptr) return fail(Errc::kBusy, "limits.connections is reached");
    Admission admission(*row);
    row->address_high.store(halves.high, std::memory_order_relaxed);
    row->address_low.store(halves.low, std::memory_order_relaxed);
    row->pid.store(getpid(), std::memory_order_relaxed);
    row->bytes_sent.store(0, std::memory_order_relaxed);
    row->bytes_received.store(0, std::memory_order_relaxed);
    row->started_ms.store(SystemClock().wall_ns() / 1'000'000, std::memory_order_relaxed);
    set_module(*row, {});
    row->claim.store(claim_of(worker, RowState::kTentative), std::memory_order_seq_cst);
    const Verdict verdict = judge(*row);
    if (verdict == Verdict::kAdmitted) {
      row->claim.store(claim_of(worker, RowState::kLive), std::memory_order_seq_cst);
      return admission;
    }
    if (verdict == Verdict::kRefused) break;
  }
  return fail(Errc::kBusy, "limits.connections or limits.connections_per_address is reached");
}

Status Limiter::enter_module(ConnectionRow& row, std::string_view module, uint32_t most) const {
  const std::string before = snapshot(row).module;
  const uint64_t hash = module_hash(module);
  if (row.module_hash.load(std::memory_order_seq_cst) == hash) return {};
  const uint64_t hash_before = row.module_hash.load(std::memory_order_seq_cst);
  set_module(row, module);
  if (most == 0) return {};
  uint64_t others = 0;
  for (const ConnectionRow& other : used_rows(segment_)) {
    if (&other == &row ||
        state_of(other.claim.load(std::memory_order_seq_cst)) == RowState::kFree) {
      continue;
    }
    if (other.module_hash.load(std::memory_order_seq_cst) == hash) ++others;
  }
  if (others < most) return {};
  set_module(row, before);
  // A name of more than 32 bytes was cut; its hash was not.
  row.module_hash.store(hash_before, std::memory_order_seq_cst);
  return fail(Errc::kBusy, "module " + std::string(module) + ": its limit of " +
                               std::to_string(most) + " connections is reached");
}

uint32_t Limiter::free_worker(uint32_t worker) const {
  uint32_t freed = 0;
  for (ConnectionRow& row : used_rows(segment_)) {
    const uint32_t claim = row.claim.load(std::memory_order_seq_cst);
    if (state_of(claim) == RowState::kFree || claim >> 8 != worker) continue;
    row.module_hash.store(0, std::memory_order_seq_cst);
    row.claim.store(0, std::memory_order_seq_cst);
    ++freed;
  }
  return freed;
}

uint32_t Limiter::count() const {
  uint32_t count = 0;
  for (const ConnectionRow& row : used_rows(segment_)) {
    if (state_of(row.claim.load(std::memory_order_seq_cst)) != RowState::kFree) ++count;
  }
  return count;
}

}  // namespace superlifter::shm
