// In-place rebuilding: an order of a plan's copies in which they can be carried out inside the
// basis file itself, so that a file need not be held twice.
//
// After R. Burns and D. Long, "In-place reconstruction of delta compressed files" (PODC 1998):
//
//   a copy must come before every copy that writes over what it reads:   a ──▶ b
//
//        basis   ├───────a───────┤                 b's target overlaps a's source
//        target            ├────b────┤
//
// A depth-first search from copy to copy along these edges, finished copies put in front, is such
// an order. An edge that leads back to a copy on the search's path closes a cycle. Then one copy of
// the cycle is trimmed by the bytes that the next one would destroy, at the edge where that costs
// least, and these bytes must be saved elsewhere before anything is written. (In the paper there is
// no elsewhere: it drops whole copies, whose bytes are sent.) Copies that overlap
// themselves are moved in the direction that reads before it writes; copies to where the bytes
// stand already are not carried out at all.
//
// Edges are never listed: what a copy reads is a range, and targets are sorted, so that the copies
// it precedes are neighbours, found by binary search; those that were visited are skipped in a
// bitmap. What is done for cheap cycles beyond one visit of each copy (going back on the path,
// splitting copies) is bounded by a multiple of their number; after that copies that close a cycle
// are saved whole. So the cost is O(n log n) for n copies, whatever the plan, and the memory
// O(n).
#pragma once

#include <vector>

#include "core/delta/plan.h"

namespace superlifter::delta {

struct InPlacePlan {
  Plan plan;  // As it was.
  // Every copy of the plan that moves bytes stands in one of these, if in pieces.
  std::vector<Copy> saved;  // To be read first, written elsewhere, and into the file at the end.
  std::vector<Copy> order;  // To be carried out in this order, each as memmove does it.
};

// REQUIRES: plan.copies ascend by target and do not overlap there.
InPlacePlan order_in_place(const Plan& plan);

}  // namespace superlifter::delta
