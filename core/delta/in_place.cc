#include "core/delta/in_place.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <utility>

namespace superlifter::delta {
namespace {

// What a plan may cost beyond one visit of each copy, per copy: pieces that others are split into,
// and steps back on the search's path.
constexpr uint64_t kTrimsPerCopy = 4;
constexpr uint64_t kStepsPerCopy = 32;

// A set of numbers in [0, count): a bitmap with a bitmap above it of what is not empty, and so on.
class IndexSet {
 public:
  explicit IndexSet(size_t count) {
    do {
      count = count / 64 + 1;
      levels_.emplace_back(count, 0);
    } while (count > 1);
  }

  void insert(size_t index) {
    for (std::vector<uint64_t>& level : levels_) {
      level[index / 64] |= uint64_t{1} << (index % 64);
      index /= 64;
    }
  }

  void erase(size_t index) {
    for (std::vector<uint64_t>& level : levels_) {
      level[index / 64] &= ~(uint64_t{1} << (index % 64));
      if (level[index / 64] != 0) return;
      index /= 64;
    }
  }

  // The first number of the set in [begin, end); `end` if there is none.
  size_t next(size_t begin, size_t end) const {
    size_t index = begin;
    for (size_t level = 0; level < levels_.size() && index / 64 < levels_[level].size(); ++level) {
      const uint64_t word = levels_[level][index / 64] >> (index % 64);
      if (word != 0) {
        index += static_cast<size_t>(std::countr_zero(word));
        while (level > 0) {
          --level;
          index = index * 64 + static_cast<size_t>(std::countr_zero(levels_[level][index]));
        }
        return std::min(index, end);
      }
      index = index / 64 + 1;
    }
    return end;
  }

 private:
  std::vector<std::vector<uint64_t>> levels_;
};

// Bytes of a copy's source that lie in another's target.
uint64_t overlap_bytes(const Copy& reader, const Copy& writer) {
  const uint64_t begin = std::max(reader.basis_offset, writer.target_offset);
  const uint64_t end = std::min(reader.basis_end(), writer.target_end());
  return end > begin ? end - begin : 0;
}

// Takes from pieces of a copy, ascending, what would be read where `writer` writes.
void trim(std::vector<Copy>& pieces, const Copy& writer) {
  std::vector<Copy> left;
  for (const Copy& piece : pieces) {
    const uint64_t begin = std::clamp(writer.target_offset, piece.basis_offset, piece.basis_end());
    const uint64_t end = std::clamp(writer.target_end(), piece.basis_offset, piece.basis_end());
    const uint64_t head = begin - piece.basis_offset;
    const uint64_t skip = end - piece.basis_offset;
    if (begin >= end) {
      left.push_back(piece);
      continue;
    }
    if (head > 0) left.push_back({piece.target_offset, piece.basis_offset, head});
    if (skip < piece.length_bytes) {
      left.push_back({piece.target_offset + skip, end, piece.length_bytes - skip});
    }
  }
  pieces = std::move(left);
}

class InPlaceOrder {
 public:
  explicit InPlaceOrder(const Plan& plan)
      : copies_(moving(plan)),
        white_(copies_.size()),
        on_path_(copies_.size()),
        position_(copies_.size()) {
    out_.plan = plan;
    for (size_t index = 0; index < copies_.size(); ++index) {
      white_.insert(index);
    }
    trims_left_ = kTrimsPerCopy * copies_.size();
    steps_left_ = kStepsPerCopy * copies_.size();
  }

  InPlacePlan run() {
    const size_t count = copies_.size();
    for (size_t root = white_.next(0, count); root < count; root = white_.next(root, count)) {
      enter(root);
      while (!path_.empty()) {
        Visit& top = path_.back();
        const size_t next = white_.next(top.next, top.end);
        if (next == top.end) {
          leave();
          continue;
        }
        top.next = next + 1;
        enter(next);
      }
    }
    std::reverse(out_.order.begin(), out_.order.end());
    return std::move(out_);
  }

 private:
  // A copy on the search's path.
  struct Visit {
    size_t index = 0;
    size_t next = 0;  // Copies whose targets overlap its source, and that it did not come to yet:
    size_t end = 0;   // [next, end).
    uint64_t edge_bytes = 0;   // What the copy before it on the path reads of its target.
    std::vector<Copy> pieces;  // What is left of it, ascending.
  };

  // The copies that move bytes. Where they stay, nothing is written.
  static std::vector<Copy> moving(const Plan& plan) {
    std::vector<Copy> out;
    uint64_t at = 0;
    for (const Copy& copy : plan.copies) {
      CHECK(copy.target_offset >= at);
      at = copy.target_end();
      if (copy.target_offset != copy.basis_offset) out.push_back(copy);
    }
    return out;
  }

  // Puts a copy on the path; or, if that closes a cycle which is cheaper to break further up, goes
  // back to there, and the copy is come to again.
  void enter(size_t index) {
    const Copy& copy = copies_[index];
    Visit visit{.index = index, .next = 0, .end = 0, .edge_bytes = 0, .pieces = {copy}};
    const auto first = [&](auto is_before) {
      return static_cast<size_t>(std::partition_point(copies_.begin(), copies_.end(), is_before) -
                                 copies_.begin());
    };
    visit.next = first([&](const Copy& other) { return other.target_end() <= copy.basis_offset; });
    visit.end = first([&](const Copy& other) { return other.target_offset < copy.basis_end(); });
    if (!path_.empty()) visit.edge_bytes = overlap_bytes(copies_[path_.back().index], copy);
    std::vector<size_t> writers;  // Before it on the path, and over what it reads.
    for (size_t writer = on_path_.next(visit.next, visit.end); writer < visit.end;
         writer = on_path_.next(writer + 1, visit.end)) {
      if (writers.size() == trims_left_) {
        visit.pieces.clear();
        writers.clear();
        break;
      }
      writers.push_back(writer);
    }
    if (!writers.empty()) {
      const size_t cut = cheapest_cut(visit, writers);
      if (cut < path_.size() + 1) return cut_path(cut, copy);
      trims_left_ -= writers.size();
      visit.pieces = what_is_left(copy, writers);
    }
    if (visit.pieces.empty()) visit.end = visit.next;  // All saved: it precedes nothing.
    white_.erase(index);
    on_path_.insert(index);
    position_[index] = path_.size();
    path_.push_back(std::move(visit));
  }

  // Where on the path, with the visit at its end, the cycles are best broken: before the copy with
  // that position. A position behind the end: by trimming the visit's own copy.
  //
  // Breaking it before position k leaves the cycles to writers from k on.
  size_t cheapest_cut(const Visit& visit, const std::vector<size_t>& writers) {
    std::vector<std::pair<size_t, uint64_t>> closing;  // Position, bytes.
    uint64_t own_bytes = 0;
    for (const size_t writer : writers) {
      closing.emplace_back(position_[writer], overlap_bytes(copies_[visit.index], copies_[writer]));
      own_bytes += closing.back().second;
    }
    std::sort(closing.begin(), closing.end());
    const size_t end = path_.size();
    size_t best = end + 1;
    if (end - closing.front().first > steps_left_ || trims_left_ == 0) return best;
    steps_left_ -= end - closing.front().first;
    uint64_t best_bytes = own_bytes;
    uint64_t left_bytes = 0;  // To be trimmed all the same.
    for (size_t k = end; k > closing.front().first; --k) {
      if (closing.back().first == k) {
        left_bytes += closing.back().second;
        closing.pop_back();
      }
      const uint64_t edge_bytes = k == end ? visit.edge_bytes : path_[k].edge_bytes;
      if (edge_bytes + left_bytes < best_bytes) {
        best = k;
        best_bytes = edge_bytes + left_bytes;
      }
    }
    return best;
  }

  // A copy without what it would read where these write; they ascend.
  std::vector<Copy> what_is_left(const Copy& copy, const std::vector<size_t>& writers) const {
    std::vector<Copy> pieces;
    uint64_t at = copy.basis_offset;
    const auto keep_to = [&](uint64_t end) {
      if (end <= at) return;
      pieces.push_back({copy.target_offset + (at - copy.basis_offset), at, end - at});
    };
    for (const size_t writer : writers) {
      keep_to(copies_[writer].target_offset);
      at = std::max(at, copies_[writer].target_end());
    }
    keep_to(copy.basis_end());
    return pieces;
  }

  // Trims the copy before that position by the target of the one there (`last`, if the path is no
  // longer than that); what was on the path from there on was not visited.
  void cut_path(size_t position, const Copy& last) {
    const Copy& writer = position < path_.size() ? copies_[path_[position].index] : last;
    while (path_.size() > position) {
      const size_t index = path_.back().index;
      white_.insert(index);
      on_path_.erase(index);
      path_.pop_back();
    }
    --trims_left_;
    Visit& reader = path_.back();
    steps_left_ -= std::min<uint64_t>(steps_left_, reader.pieces.size());
    trim(reader.pieces, writer);
    if (reader.pieces.empty()) reader.end = reader.next;
  }

  void leave() {
    Visit done = std::move(path_.back());
    path_.pop_back();
    on_path_.erase(done.index);
    const Copy& copy = copies_[done.index];
    uint64_t at = copy.basis_offset;
    const auto save_to = [&](uint64_t end) {
      if (end <= at) return;
      out_.saved.push_back({copy.target_offset + (at - copy.basis_offset), at, end - at});
    };
    for (const Copy& piece : done.pieces) {
      save_to(piece.basis_offset);
      at = piece.basis_end();
    }
    save_to(copy.basis_end());
    // The order is built back to front. Pieces of one copy go as the whole would: towards the front
    // of the file the first one first, towards the end the last one first.
    if (copy.target_offset < copy.basis_offset) {
      std::reverse(done.pieces.begin(), done.pieces.end());
    }
    out_.order.insert(out_.order.end(), done.pieces.begin(), done.pieces.end());
  }

  const std::vector<Copy> copies_;  // Those that move bytes, ascending by target.
  IndexSet white_;                  // Not visited.
  IndexSet on_path_;
  std::vector<size_t> position_;  // On the path.
  std::vector<Visit> path_;
  uint64_t trims_left_ = 0;
  uint64_t steps_left_ = 0;
  InPlacePlan out_;
};

}  // namespace

InPlacePlan order_in_place(const Plan& plan) {
  return InPlaceOrder(plan).run();
}

}  // namespace superlifter::delta
