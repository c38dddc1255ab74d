#include "core/delta/matcher.h"

#include <algorithm>
#include <bit>

#include "core/base/check.h"

namespace superlifter::delta {
namespace {

// Values with one weak checksum that are tried at a position. Chance gives hardly ever more than
// one.
constexpr size_t kMostCandidates = 8;
// A genuine value meets its weak checksum by chance once in 4 GB of basis.
constexpr uint8_t kMostFalseMatches = 64;
// Blocks that may have changed in place before the search falls back to rolling.
constexpr size_t kSkippedBlocks = 4;
constexpr size_t kWindowBytes = 1 << 20;
// Positions that are rolled over before candidates are looked at: few at first, since the next
// block is often near.
constexpr uint64_t kLeastStretch = 256;
constexpr uint64_t kMostStretch = 4096;
// Bits of the filter for each value: one bit in 64 is set, and 2^20 values take 8 MiB.
constexpr uint64_t kFilterBitsPerValue = 64;
constexpr unsigned kLeastFilterBits = 12;
constexpr unsigned kMostFilterBits = 27;

}  // namespace

void BlockTable::add(uint64_t block, BlockSum sum) {
  CHECK(blocks_.empty() || blocks_.back().number < block);
  blocks_.push_back({.number = block, .value = 0});
  sums_.push_back(cut(sum, width_));
}

void BlockTable::seal() {
  by_value_.resize(blocks_.size());
  for (size_t i = 0; i < by_value_.size(); ++i)
    by_value_[i] = static_cast<uint32_t>(i);
  const auto key = [&](uint32_t index) {
    return uint64_t{sums_[index].weak} << 32 | sums_[index].strong;
  };
  std::stable_sort(by_value_.begin(), by_value_.end(),
                   [&](uint32_t a, uint32_t b) { return key(a) < key(b); });
  for (size_t i = 0; i < by_value_.size(); ++i) {
    const BlockSum& sum = sums_[by_value_[i]];
    if (values_.empty() || values_.back().sum != sum) {
      values_.push_back({.sum = sum, .first = static_cast<uint32_t>(i), .count = 0});
    }
    ++values_.back().count;
    blocks_[by_value_[i]].value = static_cast<uint32_t>(values_.size() - 1);
  }
  sums_ = {};
  false_matches_ = std::make_unique<std::atomic<uint8_t>[]>(values_.size());

  const auto wanted = static_cast<unsigned>(
      std::bit_width(std::max<uint64_t>(values_.size(), 1) * kFilterBitsPerValue - 1));
  const unsigned filter_bits = std::clamp(wanted, kLeastFilterBits, kMostFilterBits);
  filter_shift_ = 32 - filter_bits;
  filter_.assign(size_t{1} << (filter_bits - 6), 0);
  const unsigned start_bits =
      std::clamp(static_cast<unsigned>(std::bit_width(values_.size())), 4U, kMostFilterBits);
  starts_shift_ = 32 - start_bits;
  starts_.assign((size_t{1} << start_bits) + 1, 0);
  for (const Value& value : values_) {
    const uint32_t bit = value.sum.weak >> filter_shift_;
    filter_[bit / 64] |= uint64_t{1} << (bit % 64);
    ++starts_[(value.sum.weak >> starts_shift_) + 1];
  }
  for (size_t i = 1; i < starts_.size(); ++i)
    starts_[i] += starts_[i - 1];
}

size_t BlockTable::find_block(uint64_t block) const {
  const auto found = std::lower_bound(blocks_.begin(), blocks_.end(), block,
                                      [](const Block& a, uint64_t b) { return a.number < b; });
  return found != blocks_.end() && found->number == block
             ? static_cast<size_t>(found - blocks_.begin())
             : blocks_.size();
}

bool BlockTable::is_block(size_t index, ByteView bytes) const {
  const BlockSum& sum = values_[blocks_[index].value].sum;
  // With all its bits the strong checksum is evidence enough where one place only is looked at.
  if (width_ < kMostWidth && hash::weak_sum(bytes) != sum.weak) return false;
  if (width_ == kLeastWidth) return true;
  const BlockSum found{.weak = sum.weak,
                       .strong = static_cast<uint32_t>(strong_sum(bytes, level_))};
  return cut(found, width_) == sum;
}

size_t BlockTable::find(uint32_t weak, ByteView bytes, uint64_t after) const {
  const uint32_t bucket = weak >> starts_shift_;
  const auto begin = values_.begin() + starts_[bucket];
  const auto end = values_.begin() + starts_[bucket + 1];
  auto at = std::lower_bound(begin, end, weak,
                             [](const Value& value, uint32_t sum) { return value.sum.weak < sum; });
  bool has_strong = false;
  BlockSum sum{.weak = weak, .strong = 0};
  for (size_t tried = 0; at != end && at->sum.weak == weak && tried < kMostCandidates;
       ++at, ++tried) {
    std::atomic<uint8_t>& misses = false_matches_[static_cast<size_t>(at - values_.begin())];
    if (misses.load(std::memory_order_relaxed) >= kMostFalseMatches) continue;
    if (!has_strong && width_ > kLeastWidth) {
      sum.strong = static_cast<uint32_t>(strong_sum(bytes, level_));
      sum = cut(sum, width_);
    }
    has_strong = true;
    if (sum != at->sum) {
      misses.fetch_add(1, std::memory_order_relaxed);
      continue;
    }
    const auto first = by_value_.begin() + at->first;
    const auto last = first + at->count;
    const auto next = std::upper_bound(first, last, after, [&](uint64_t number, uint32_t index) {
      return number < blocks_[index].number;
    });
    return next != last ? *next : *first;
  }
  return blocks_.size();
}

uint64_t BlockTable::false_matches() const {
  uint64_t sum = 0;
  for (size_t i = 0; i < values_.size(); ++i)
    sum += false_matches_[i].load(std::memory_order_relaxed);
  return sum;
}

void BlockTable::fill_equals(
    std::span<const Match> matches,
    const std::function<void(uint64_t block, uint64_t basis_offset)>& fill) const {
  constexpr uint64_t kNowhere = UINT64_MAX;
  std::vector<uint64_t> found(values_.size(), kNowhere);
  std::vector<bool> matched(blocks_.size(), false);
  for (const Match& match : matches) {
    const size_t index = find_block(match.block);
    matched[index] = true;
    uint64_t& offset = found[blocks_[index].value];
    offset = std::min(offset, match.basis_offset);
  }
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const uint64_t offset = found[blocks_[i].value];
    if (!matched[i] && offset != kNowhere) fill(blocks_[i].number, offset);
  }
}

namespace {

// Where a block may be: its weak checksum may be one of the table's.
struct Candidate {
  uint32_t step = 0;
  uint32_t weak = 0;
};

// One walk over a range of the basis.
class Walk {
 public:
  Walk(const BlockTable& table, const BasisReader& read, uint64_t basis_bytes, Range positions,
       std::vector<Match>& out)
      : table_(table),
        read_(read),
        length_(block_length_bytes(table.level())),
        basis_bytes_(basis_bytes),
        // One past the last place where a whole block can begin.
        end_(basis_bytes < length_ ? 0 : std::min(positions.end(), basis_bytes - length_ + 1)),
        position_(positions.offset),
        roller_(length_),
        length_power_(hash::weak_power(length_)),
        out_(out) {}

  void run() {
    if (table_.size() == 0) return;
    size_t expected = table_.size();
    if (position_ % length_ == 0) expected = table_.find_block(position_ / length_);
    while (position_ < end_) {
      if (!fill(1)) return;
      if (expected < table_.size() && (take(expected) || skip_changed(expected))) continue;
      if (!roll(expected)) return;
    }
  }

 private:
  // Makes the window hold `blocks` blocks from position_ on (fewer at the basis's end).
  bool fill(size_t blocks) {
    const uint64_t wanted = std::min(blocks * length_, basis_bytes_ - position_);
    if (position_ >= window_offset_ && position_ + wanted <= window_offset_ + window_bytes_) {
      return true;
    }
    const uint64_t most = std::max<uint64_t>(kWindowBytes, 2 * length_) + wanted;
    // Not far beyond what this walk may look at.
    const uint64_t useful = end_ - position_ + (kSkippedBlocks + 1) * length_;
    window_bytes_ = std::min({most, std::max(useful, wanted), basis_bytes_ - position_});
    if (window_.size() < window_bytes_) window_.resize(window_bytes_);
    window_offset_ = position_;
    if (read_(position_, MutableBytes(window_).first(window_bytes_))) return true;
    window_bytes_ = 0;  // Nothing of what a failed read left behind is looked at.
    return false;
  }

  ByteView block_at(uint64_t position) const {
    return ByteView(window_).subspan(position - window_offset_, length_);
  }

  void record(size_t index) {
    out_.push_back({.block = table_.block_at(index), .basis_offset = position_});
    position_ += length_;
  }

  // The block that follows in the target, if it is searched for.
  size_t next_of(size_t index, uint64_t distance = 1) const {
    const uint64_t number = table_.block_at(index) + distance;
    for (size_t at = index + 1; at < table_.size() && at <= index + distance; ++at) {
      if (table_.block_at(at) == number) return at;
    }
    return table_.size();
  }

  // The expected block is here.
  bool take(size_t& expected) {
    if (!table_.is_block(expected, block_at(position_))) return false;
    last_ = table_.block_at(expected);
    record(expected);
    expected = next_of(expected);
    return true;
  }

  // Some blocks changed in place, and one behind them did not.
  bool skip_changed(size_t& expected) {
    for (size_t skipped = 1; skipped <= kSkippedBlocks; ++skipped) {
      const uint64_t position = position_ + skipped * length_;
      if (position >= end_) return false;
      const size_t next = next_of(expected, skipped);
      if (next == table_.size()) continue;
      if (!fill(kSkippedBlocks + 1)) return false;
      if (!table_.is_block(next, block_at(position))) continue;
      position_ = position;
      expected = next;
      return true;
    }
    return false;
  }

  // Rolls to the next place where a block is. False at the end.
  bool roll(size_t& expected) {
    while (position_ < end_) {
      if (!fill(1)) return false;
      const uint64_t count =
          std::min(end_ - position_, window_offset_ + window_bytes_ - position_ - length_ + 1);
      const uint64_t last = position_ + count - 1;
      uint32_t sum = hash::weak_sum(block_at(position_));
      if (table_.may_have(sum) && take_any(sum, expected)) return true;
      for (uint64_t stretch = kLeastStretch; position_ < last;
           stretch = std::min(2 * stretch, kMostStretch)) {
        const uint64_t steps = std::min(stretch, last - position_);
        const uint64_t begin = position_;
        sum = roll_stretch(window_.data() + (begin - window_offset_), sum, steps);
        for (const Candidate& candidate : candidates()) {
          position_ = begin + candidate.step;
          if (take_any(candidate.weak, expected)) return true;
        }
        position_ = begin + steps;
      }
      ++position_;
    }
    return false;
  }

  // Some block is here, with this weak checksum.
  bool take_any(uint32_t weak, size_t& expected) {
    const size_t found = table_.find(weak, block_at(position_), last_);
    if (found == table_.size()) return false;
    last_ = table_.block_at(found);
    record(found);
    expected = next_of(found);
    return true;
  }

  // Rolls over `steps` bytes, from the block at `bytes`, whose weak checksum is `sum`. Returns the
  // checksum at the end; candidates_ are then the steps after which a block may be there.
  //
  // A step's multiplication has to wait for that of the step before. So the stretch is rolled over
  // in two halves side by side; and candidates are only noted, without a branch that would often be
  // mispredicted, so that the table, too large for a near cache, can be asked for all of them at
  // once.
  uint32_t roll_stretch(const uint8_t* bytes, uint32_t sum, uint64_t steps) {
    const uint64_t half = steps / 2;
    const uint8_t* const in = bytes + length_;
    // The checksum half-way, from what comes and goes until then.
    uint32_t second = sum;
    if (half > 0) {
      second = hash::weak_join(sum, hash::weak_sum({in, half}), hash::weak_power(half)) -
               hash::weak_sum({bytes, half}) * length_power_;
    }
    if (candidates_.size() < steps) candidates_.resize(steps);
    Candidate* first_end = candidates_.data();
    Candidate* const second_begin = candidates_.data() + half;
    Candidate* second_end = second_begin;
    uint32_t first = sum;
    uint64_t i = 0;
    for (; i < half; ++i) {
      first = roller_.roll(first, bytes[i], in[i]);
      *first_end = {.step = static_cast<uint32_t>(i + 1), .weak = first};
      first_end += table_.may_have(first) ? 1 : 0;
      second = roller_.roll(second, bytes[half + i], in[half + i]);
      *second_end = {.step = static_cast<uint32_t>(half + i + 1), .weak = second};
      second_end += table_.may_have(second) ? 1 : 0;
    }
    for (i += half; i < steps; ++i) {
      second = roller_.roll(second, bytes[i], in[i]);
      *second_end = {.step = static_cast<uint32_t>(i + 1), .weak = second};
      second_end += table_.may_have(second) ? 1 : 0;
    }
    first_end = std::copy(second_begin, second_end, first_end);
    candidate_count_ = static_cast<size_t>(first_end - candidates_.data());
    for (const Candidate& candidate : candidates())
      table_.prefetch_start(candidate.weak);
    for (const Candidate& candidate : candidates())
      table_.prefetch_value(candidate.weak);
    return second;
  }

  std::span<const Candidate> candidates() const {
    return std::span(candidates_).first(candidate_count_);
  }

  const BlockTable& table_;
  const BasisReader& read_;
  const uint64_t length_;
  const uint64_t basis_bytes_;
  const uint64_t end_;
  uint64_t position_;
  uint64_t last_ = 0;  // Block that was found last.
  const hash::WeakRoller roller_;
  const uint32_t length_power_;  // M^length.
  std::vector<Match>& out_;
  Bytes window_;
  uint64_t window_offset_ = 0;
  uint64_t window_bytes_ = 0;
  std::vector<Candidate> candidates_;  // Room for those of a stretch; the first are its.
  size_t candidate_count_ = 0;
};

}  // namespace

void search(const BlockTable& table, const BasisReader& read, uint64_t basis_bytes, Range positions,
            std::vector<Match>& out) {
  Walk(table, read, basis_bytes, positions, out).run();
}

}  // namespace superlifter::delta
