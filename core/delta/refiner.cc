#include "core/delta/refiner.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/base/check.h"

namespace superlifter::delta {
namespace {

// A basis up to this length is searched everywhere, but at the finest levels: so content that moved
// within it is found. Else only what no match has used yet is searched, or each level would cost a
// pass over the basis.
constexpr uint64_t kWholeSearchBytes = uint64_t{32} << 20;
// Part of a search that one thread takes: long enough that a part's beginning, where the search
// first has to find its feet, costs little, short enough that threads end together.
constexpr uint64_t kPartBytes = uint64_t{2} << 20;
// Blocks that a run is extended by on either side; longer stretches are for the search, which has
// all threads.
constexpr uint64_t kExtendedBlocks = 64;
// What is read beside them at first, and at most while reads go on where the last one ended: most
// runs end within a few blocks, and there may be one at every block of the basis.
constexpr uint64_t kLeastExtendReadBytes = 1 << 10;
constexpr uint64_t kMostExtendReadBytes = 64 << 10;
constexpr size_t kRunsTogether = 64;
// A single match counts when chance would give less than one in 2^8 such.
constexpr double kMarginBits = 8;
// Once there are matches, blocks are found beside them or not far from where they are expected, and
// that needs no more evidence than this.
constexpr unsigned kRefiningWidth = 5;
// Nothing found yet: sums may cost this part of the target, no more.
constexpr uint64_t kBlindPart = 250;
// At a level that finds less than one block in so many, finer ones hardly find more.
constexpr uint64_t kLeastMatchedPart = 64;

// Where a level below the leaves found less than one block in so many, what is missing has changed
// as a whole: then only its edges are worth finer sums. (An image's noise: a third fewer sums.)
constexpr uint64_t kEdgesOnlyPart = 3;
constexpr uint64_t kBlocksInBlock = uint64_t{1} << kLevelStep;

double log2_of(uint64_t value) {
  return std::log2(static_cast<double>(std::max<uint64_t>(value, 1)));
}

uint64_t total(const std::vector<Range>& ranges) {
  uint64_t sum = 0;
  for (const Range& range : ranges)
    sum += range.length_bytes;
  return sum;
}

// Sorted by target: joins what continues in both files, drops what is covered already.
std::vector<Copy> joined(std::vector<Copy> copies) {
  std::sort(copies.begin(), copies.end(),
            [](const Copy& a, const Copy& b) { return a.target_offset < b.target_offset; });
  std::vector<Copy> out;
  for (const Copy& copy : copies) {
    if (!out.empty() && out.back().target_end() > copy.target_offset) continue;
    const bool continues = !out.empty() && out.back().target_end() == copy.target_offset &&
                           out.back().basis_end() == copy.basis_offset;
    if (continues) {
      out.back().length_bytes += copy.length_bytes;
    } else {
      out.push_back(copy);
    }
  }
  return out;
}

// A run of missing blocks on its way through extend().
struct Extension {
  BlockRun run;
  size_t first_sum = 0;                 // Of the run, in the answer.
  std::optional<uint64_t> left_basis;   // Where the run would begin in the basis,
  std::optional<uint64_t> right_basis;  // and end.
};

// Compares blocks of the target with the basis at one place after the other.
class Extender {
 public:
  Extender(const RefinerOptions& options, const Refiner::Ask& ask,
           const std::vector<BlockSum>& sums, const BasisReader& read)
      : options_(options), ask_(ask), sums_(sums), read_(read) {}

  void extend(const Extension& extension, std::vector<Copy>& out) {
    const uint64_t count = extension.run.count;
    uint64_t taken = 0;
    if (extension.left_basis) taken = forward(extension, *extension.left_basis, out);
    if (extension.right_basis && taken < count) {
      backward(extension, *extension.right_basis, taken, out);
    }
  }

 private:
  uint64_t length_of(uint64_t block) const {
    const uint64_t offset = block << ask_.level;
    return std::min(block_length_bytes(ask_.level), options_.target_bytes - offset);
  }

  // The `length` bytes at `offset`; empty when they are not there. Reads ahead in one direction.
  ByteView bytes(uint64_t offset, uint64_t length, bool ahead) {
    const uint64_t end = offset + length;
    if (offset < offset_ || end > offset_ + size_) {
      const bool goes_on =
          ahead == was_ahead_ && (ahead ? offset >= offset_ && offset <= offset_ + 2 * size_
                                        : end <= offset_ + size_ && end + size_ >= offset_);
      was_ahead_ = ahead;
      read_ahead_ =
          goes_on ? std::min(2 * read_ahead_, kMostExtendReadBytes) : kLeastExtendReadBytes;
      const uint64_t size = std::max(length, read_ahead_);
      offset_ = ahead ? offset : end - std::min(size, end);
      size_ = ahead ? std::min(size, options_.basis_bytes - offset) : end - offset_;
      if (buffer_.size() < size_) buffer_.resize(size_);
      if (!read_(offset_, MutableBytes(buffer_).first(size_))) {
        size_ = 0;
        return {};
      }
    }
    return ByteView(buffer_).subspan(offset - offset_, length);
  }

  bool is_match(const Extension& extension, uint64_t index, uint64_t offset, bool ahead) {
    const ByteView block = bytes(offset, length_of(extension.run.first + index), ahead);
    if (block.empty()) return false;
    const BlockSum& wanted = sums_[extension.first_sum + index];
    if (hash::weak_sum(block) != wanted.weak) return false;
    const auto strong = static_cast<uint32_t>(strong_sum(block, ask_.level));
    return cut({.weak = wanted.weak, .strong = strong}, ask_.width) == wanted;
  }

  // Blocks that continue the match on the left; returns how many.
  uint64_t forward(const Extension& extension, uint64_t basis, std::vector<Copy>& out) {
    const uint64_t most = std::min(extension.run.count, kExtendedBlocks);
    uint64_t index = 0;
    uint64_t at = basis;
    for (; index < most; ++index) {
      const uint64_t length = length_of(extension.run.first + index);
      if (length > options_.basis_bytes - at || !is_match(extension, index, at, true)) break;
      at += length;
    }
    if (index > 0) out.push_back({extension.run.first << ask_.level, basis, at - basis});
    return index;
  }

  // The same on the right, back to block `least` of the run.
  void backward(const Extension& extension, uint64_t basis, uint64_t least,
                std::vector<Copy>& out) {
    const uint64_t stop =
        std::max(least, extension.run.count - std::min(extension.run.count, kExtendedBlocks));
    uint64_t index = extension.run.count;
    uint64_t at = basis;
    while (index > stop) {
      const uint64_t length = length_of(extension.run.first + index - 1);
      if (length > at || !is_match(extension, index - 1, at - length, false)) break;
      at -= length;
      --index;
    }
    if (at < basis) {
      out.push_back({(extension.run.first + index) << ask_.level, at, basis - at});
    }
  }

  const RefinerOptions& options_;
  const Refiner::Ask& ask_;
  const std::vector<BlockSum>& sums_;
  const BasisReader& read_;
  Bytes buffer_;
  uint64_t offset_ = 0;  // Of what buffer_ holds,
  uint64_t size_ = 0;    // and how much that is.
  uint64_t read_ahead_ = kLeastExtendReadBytes;
  bool was_ahead_ = true;
};

}  // namespace

uint64_t Refiner::Ask::block_count() const {
  uint64_t sum = 0;
  for (const BlockRun& run : runs)
    sum += run.count;
  return sum;
}

Refiner::Refiner(const RefinerOptions& options) : options_(options) {
  plan_.target_bytes = options.target_bytes;
  const bool has_levels = is_level(options.finest_kept_level) && is_level(options.finest_level) &&
                          options.target_bytes > 0 && options.basis_bytes > 0;
  if (has_levels) make_ask(first_level(options.target_bytes, options.finest_kept_level));
}

Status Refiner::answer(ByteView sums, const BasisReader& read, const ParallelFor& parallel) {
  CHECK(ask_.has_value());
  if (sums.size() != ask_->size_bytes()) {
    return fail(Errc::kProtocol, "a signature has not as many sums as were asked for");
  }
  const Ask ask = std::move(*ask_);
  ask_.reset();
  const std::vector<BlockSum> parsed = parse_sums(sums, ask.width);
  const uint64_t before = plan_.copied_bytes();
  extend(ask, parsed, read, parallel);
  search_rest(ask, parsed, read, parallel);
  if (ask.level < options_.finest_level + kLevelStep) return {};
  const uint64_t found_blocks = (plan_.copied_bytes() - before) >> ask.level;
  const uint64_t asked_blocks = ask.block_count();
  const bool is_fine = ask.level <= kLeafLevel;
  if (is_fine && found_blocks * kLeastMatchedPart < asked_blocks) return {};
  edges_only_ = is_fine && found_blocks * kEdgesOnlyPart < asked_blocks;
  make_ask(ask.level - kLevelStep);
  return {};
}

// Asks for what is missing, at a level; nothing missing: the plan is complete.
void Refiner::make_ask(unsigned level) {
  Ask ask;
  ask.level = level;
  ask.runs = missing_runs(level);
  if (ask.runs.empty()) return;
  ask.width = choose_width(total(places_to_search(level)), ask.block_count());
  const bool is_blind = asked_bytes_ > 0 && plan_.copies.empty();
  if (is_blind && asked_bytes_ + ask.size_bytes() > options_.target_bytes / kBlindPart) return;
  asked_bytes_ += ask.size_bytes();
  ask_ = std::move(ask);
}

// The width that costs least: that of the sums, and a wrong match now and then, which costs the
// whole file.
unsigned Refiner::choose_width(uint64_t places, uint64_t blocks) const {
  unsigned best = kMostWidth;
  double best_cost = 0;
  for (unsigned width = kMostWidth; width >= kLeastWidth; --width) {
    const double wrong = std::exp2(log2_of(places) + log2_of(blocks) - 8.0 * width);
    const double cost = static_cast<double>(blocks) * width +
                        std::min(wrong, 1.0) * static_cast<double>(options_.target_bytes);
    if (width != kMostWidth && cost >= best_cost) continue;
    best = width;
    best_cost = cost;
  }
  return plan_.copies.empty() ? best : std::min(best, kRefiningWidth);
}

std::vector<BlockRun> Refiner::missing_runs(unsigned level) const {
  std::vector<BlockRun> runs;
  const uint64_t length = block_length_bytes(level);
  size_t next_copy = 0;  // The first that begins behind the literal.
  for (const Range& literal : plan_.literals()) {
    while (next_copy < plan_.copies.size() &&
           plan_.copies[next_copy].target_offset < literal.end()) {
      ++next_copy;
    }
    // Between two matches that are in order, the basis holds no more than lies between them.
    const uint64_t left = next_copy > 0 ? plan_.copies[next_copy - 1].basis_end() : 0;
    const uint64_t right = next_copy < plan_.copies.size() ? plan_.copies[next_copy].basis_offset
                                                           : options_.basis_bytes;
    const bool is_insertion = !plan_.copies.empty() && left <= right && right - left < length;
    if (is_insertion && level < kLeafLevel + kLevelStep) continue;
    const uint64_t first = literal.offset >> level;
    const uint64_t end = block_count(literal.end(), level);
    if (edges_only_ && end - first >= 3 * kBlocksInBlock) {
      runs.push_back({first, kBlocksInBlock});
      runs.push_back({end - kBlocksInBlock, kBlocksInBlock});
      continue;
    }
    runs.push_back({first, end - first});
  }
  return runs;
}

// Ranges of the basis where a block may begin.
std::vector<Range> Refiner::places_to_search(unsigned level) const {
  const bool is_cheap = options_.basis_bytes <= kWholeSearchBytes && level > kLeafLevel;
  if (is_cheap || plan_.copies.empty()) {
    return {{0, options_.basis_bytes}};
  }
  std::vector<Range> used;
  used.reserve(plan_.copies.size());
  for (const Copy& copy : plan_.copies)
    used.push_back({copy.basis_offset, copy.length_bytes});
  std::sort(used.begin(), used.end(),
            [](const Range& a, const Range& b) { return a.offset < b.offset; });
  used.push_back({options_.basis_bytes, 0});
  // A block may begin in a used range and end behind it.
  const uint64_t overlap = block_length_bytes(level) - 1;
  std::vector<Range> places;
  uint64_t at = 0;
  for (const Range& range : used) {
    if (range.offset > at) {
      const uint64_t begin =
          std::max(at - std::min(at, overlap), places.empty() ? 0 : places.back().end());
      if (range.offset > begin) places.push_back({begin, range.offset - begin});
    }
    at = std::max(at, range.end());
  }
  return places;
}

void Refiner::extend(const Ask& ask, const std::vector<BlockSum>& sums, const BasisReader& read,
                     const ParallelFor& parallel) {
  std::vector<Extension> extensions;
  size_t first_sum = 0;
  size_t next_copy = 0;
  for (const BlockRun& run : ask.runs) {
    Extension extension;
    extension.run = run;
    extension.first_sum = first_sum;
    first_sum += run.count;
    const uint64_t offset = run.first << ask.level;
    while (next_copy < plan_.copies.size() && plan_.copies[next_copy].target_offset < offset)
      ++next_copy;
    if (next_copy > 0) {
      extension.left_basis = plan_.copies[next_copy - 1].basis_end();
    } else {
      extension.left_basis = 0;
    }
    extension.right_basis = next_copy < plan_.copies.size() ? plan_.copies[next_copy].basis_offset
                                                            : options_.basis_bytes;
    extensions.push_back(extension);
  }
  const size_t groups = (extensions.size() + kRunsTogether - 1) / kRunsTogether;
  std::vector<std::vector<Copy>> found(groups);
  parallel(groups, [&](size_t group) {
    Extender extender(options_, ask, sums, read);
    const size_t end = std::min(extensions.size(), (group + 1) * kRunsTogether);
    for (size_t i = group * kRunsTogether; i < end; ++i)
      extender.extend(extensions[i], found[group]);
  });
  std::vector<Copy> copies;
  for (const std::vector<Copy>& part : found)
    copies.insert(copies.end(), part.begin(), part.end());
  add_copies(std::move(copies));
}

void Refiner::search_rest(const Ask& ask, const std::vector<BlockSum>& sums,
                          const BasisReader& read, const ParallelFor& parallel) {
  const uint64_t length = block_length_bytes(ask.level);
  BlockTable table(ask.level, ask.width);
  size_t sum = 0;
  size_t copy = 0;
  for (const BlockRun& run : ask.runs) {
    for (uint64_t block = run.first; block < run.end(); ++block, ++sum) {
      const uint64_t offset = block << ask.level;
      while (copy < plan_.copies.size() && plan_.copies[copy].target_end() <= offset)
        ++copy;
      const bool is_found =
          copy < plan_.copies.size() && plan_.copies[copy].target_offset <= offset;
      if (!is_found && options_.target_bytes - offset >= length) table.add(block, sums[sum]);
    }
  }
  if (table.size() == 0) return;
  table.seal();
  const std::vector<Range> places = places_to_search(ask.level);
  std::vector<Range> parts;
  for (const Range& place : places) {
    for (uint64_t at = place.offset; at < place.end();) {
      // Parts end at block borders, where the next one looks first for what did not move.
      const uint64_t end = std::min(place.end(), (at / kPartBytes + 1) * kPartBytes);
      parts.push_back({at, end - at});
      at = end;
    }
  }
  // Many short parts are one piece of work.
  std::vector<size_t> pieces;
  uint64_t piece_bytes = kPartBytes;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (piece_bytes >= kPartBytes) {
      pieces.push_back(i);
      piece_bytes = 0;
    }
    piece_bytes += parts[i].length_bytes;
  }
  pieces.push_back(parts.size());
  std::vector<std::vector<Match>> found(pieces.size() - 1);
  parallel(found.size(), [&](size_t piece) {
    for (size_t i = pieces[piece]; i < pieces[piece + 1]; ++i)
      search(table, read, options_.basis_bytes, parts[i], found[piece]);
  });
  std::vector<Match> matches;
  for (const std::vector<Match>& part : found)
    matches.insert(matches.end(), part.begin(), part.end());
  matches = choose_matches(ask, std::move(matches), table, total(places));
  std::vector<Copy> copies;
  copies.reserve(matches.size());
  for (const Match& match : matches)
    copies.push_back({match.block << ask.level, match.basis_offset, length});
  table.fill_equals(matches, [&](uint64_t block, uint64_t basis_offset) {
    copies.push_back({block << ask.level, basis_offset, length});
  });
  add_copies(std::move(copies));
}

// One match for each block, and none that chance alone may have given.
std::vector<Match> Refiner::choose_matches(const Ask& ask, std::vector<Match> matches,
                                           const BlockTable& table, uint64_t places) const {
  std::sort(matches.begin(), matches.end());
  matches.erase(std::unique(matches.begin(), matches.end()), matches.end());
  const uint64_t length = block_length_bytes(ask.level);
  // Evidence that is left when chance had so many places.
  const auto suffices = [&](uint64_t among) {
    return 8.0 * ask.width >= log2_of(among) + log2_of(table.size()) + kMarginBits;
  };
  const bool one_is_enough = suffices(places);
  const auto has = [&](uint64_t block, uint64_t basis_offset) {
    return std::binary_search(matches.begin(), matches.end(), Match{block, basis_offset});
  };
  std::vector<Match> chosen;
  size_t next_copy = 0;
  for (size_t i = 0; i < matches.size();) {
    const uint64_t block = matches[i].block;
    while (next_copy < plan_.copies.size() &&
           plan_.copies[next_copy].target_offset < block << ask.level) {
      ++next_copy;
    }
    // Where the block is when nothing has moved: between what its neighbors were found as.
    const uint64_t left = next_copy > 0 ? plan_.copies[next_copy - 1].basis_end() : 0;
    const uint64_t right = next_copy < plan_.copies.size() ? plan_.copies[next_copy].basis_offset
                                                           : options_.basis_bytes;
    const bool has_window = right > left && suffices(right - left);
    const Match* best = nullptr;
    int best_rank = 0;
    for (; i < matches.size() && matches[i].block == block; ++i) {
      const Match& match = matches[i];
      const bool follows = !chosen.empty() && chosen.back().block + 1 == block &&
                           chosen.back().basis_offset + length == match.basis_offset;
      const bool is_followed = has(block + 1, match.basis_offset + length);
      const bool has_neighbor =
          block > 0 && match.basis_offset >= length && has(block - 1, match.basis_offset - length);
      const bool is_expected =
          has_window && match.basis_offset >= left && match.basis_offset + length <= right;
      const int rank = 8 * (follows ? 1 : 0) + 4 * (is_followed || has_neighbor ? 1 : 0) +
                       2 * (is_expected ? 1 : 0) + (one_is_enough ? 1 : 0);
      if (rank <= best_rank) continue;
      best = &match;
      best_rank = rank;
    }
    if (best != nullptr) chosen.push_back(*best);
  }
  return chosen;
}

void Refiner::add_copies(std::vector<Copy> copies) {
  if (copies.empty()) return;
  copies.insert(copies.end(), plan_.copies.begin(), plan_.copies.end());
  plan_.copies = joined(std::move(copies));
}

}  // namespace superlifter::delta
