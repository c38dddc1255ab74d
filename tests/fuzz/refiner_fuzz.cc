// A delta against a server that answers what it likes. However wrong the sums are, it must end
// after one ask a level, with a plan that can be carried out; and with the true sums of the basis
// itself the plan is one copy.
//
// Input: 4 bytes of settings, a byte that says how the rest is shared, basis, sums (repeated as
// often as is asked for; none: the true sums of the basis).
#include <algorithm>

#include "core/base/check.h"
#include "core/delta/refiner.h"

namespace superlifter {
namespace {

struct Input {
  delta::RefinerOptions options;
  ByteView basis;
  ByteView sums;
  uint64_t readable_bytes = 0;  // Of the basis: what lies behind cannot be read.
};

Input parse(ByteView bytes) {
  Input input;
  const ByteView rest = bytes.subspan(5);
  input.basis = rest.first(rest.size() * bytes[4] / 255);
  input.sums = rest.subspan(input.basis.size());
  input.options.basis_bytes = input.basis.size();
  input.options.target_bytes = uint64_t{bytes[0]} << (bytes[1] % 16);
  input.options.finest_kept_level = delta::kLeafLevel + bytes[2] % 4;
  input.options.finest_level = delta::kFinestLevel + bytes[2] / 4 % 6;
  input.readable_bytes = (bytes[3] & 1) != 0 ? input.basis.size() / 2 : input.basis.size();
  if (input.sums.empty()) {
    input.options.target_bytes = input.basis.size();
    input.readable_bytes = input.basis.size();
  }
  return input;
}

Bytes answer(const Input& input, const delta::Refiner::Ask& ask) {
  Bytes out;
  if (!input.sums.empty()) {
    out.reserve(ask.size_bytes());
    while (out.size() < ask.size_bytes()) {
      const size_t part = std::min<size_t>(input.sums.size(), ask.size_bytes() - out.size());
      out.insert(out.end(), input.sums.begin(), input.sums.begin() + static_cast<ptrdiff_t>(part));
    }
    return out;
  }
  for (const delta::BlockRun& run : ask.runs) {
    const uint64_t begin = run.first << ask.level;
    const uint64_t end = std::min<uint64_t>(run.end() << ask.level, input.basis.size());
    delta::append_sums(input.basis.subspan(begin, end - begin), ask.level, ask.width, out);
  }
  return out;
}

void check_plan(const delta::Plan& plan, const Input& input) {
  uint64_t at = 0;
  for (const delta::Copy& copy : plan.copies) {
    CHECK(copy.length_bytes > 0);
    CHECK(copy.target_offset >= at);
    at = copy.target_end();
    CHECK(copy.basis_end() <= input.readable_bytes);
  }
  CHECK(at <= input.options.target_bytes);
}

void one_thread(size_t count, const std::function<void(size_t)>& work) {
  for (size_t i = 0; i < count; ++i)
    work(i);
}

}  // namespace
}  // namespace superlifter

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace superlifter;  // NOLINT(google-build-using-namespace)
  if (size < 5) return 0;
  const Input input = parse({data, size});
  const auto read = [&](uint64_t offset, MutableBytes into) {
    CHECK(offset <= input.basis.size() && into.size() <= input.basis.size() - offset);
    if (offset + into.size() > input.readable_bytes) return false;
    const ByteView from = input.basis.subspan(offset, into.size());
    std::copy(from.begin(), from.end(), into.begin());
    return true;
  };
  delta::Refiner refiner(input.options);
  const bool is_asked = refiner.ask().has_value();
  unsigned last_level = delta::kCoarsestLevel + 1;
  while (refiner.ask()) {
    CHECK(refiner.ask()->level < last_level);
    last_level = refiner.ask()->level;
    CHECK(refiner.answer(answer(input, *refiner.ask()), read, one_thread).has_value());
    check_plan(refiner.plan(), input);
  }
  if (is_asked && input.sums.empty()) CHECK(refiner.plan().literals().empty());
  return 0;
}
