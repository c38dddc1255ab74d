#include "client/patcher.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "core/base/check.h"
#include "core/base/coding.h"
#include "core/base/limits.h"
#include "core/base/rel_path.h"
#include "core/fs/beneath.h"

namespace superlifter::client {
namespace {

// What a literal costs beside its bytes: its item in a request and its frame in the answer.
constexpr uint64_t kRangeOverheadBytes = 16;

bool read_exactly(int fd, uint64_t offset, MutableBytes into) {
  while (!into.empty()) {
    const ssize_t count = pread(fd, into.data(), into.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    into = into.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  return true;
}

// Whether a plan moves fewer bytes than the whole file.
bool pays(const delta::Plan& plan) {
  if (plan.copies.empty()) return false;
  const uint64_t literals = plan.target_bytes - plan.copied_bytes();
  return literals + (plan.copies.size() + 1) * kRangeOverheadBytes < plan.target_bytes;
}

}  // namespace

// One file on its way. While it is matched it belongs to the pool, else to the network thread.
struct Patcher::Task {
  Task(uint32_t task_entry, std::string basis_path, const delta::RefinerOptions& options)
      : entry(task_entry), basis(std::move(basis_path)), refiner(options) {}

  const uint32_t entry;
  std::string basis;
  delta::Refiner refiner;
  Bytes sums;               // Of the refiner's ask, as they come.
  size_t parts_wanted = 0;  // Of the ask, not answered yet.
  bool is_refused = false;  // Some of the sums cannot be had.
};

Patcher::Patcher(PatcherOptions options, Conversation& conversation)
    : options_(options),
      conversation_(conversation),
      pool_(std::make_unique<MatchPool>(options.threads)) {
  CHECK(delta::is_level(options.signature_level));
}

Patcher::~Patcher() {
  stop_.store(true, std::memory_order_relaxed);
  pool_.reset();
}

void Patcher::add(uint32_t entry, std::string basis, uint64_t basis_bytes) {
  auto task = std::make_unique<Task>(
      entry, std::move(basis),
      delta::RefinerOptions{.target_bytes = options_.table.record(entry).size_bytes,
                            .basis_bytes = basis_bytes,
                            .finest_kept_level = options_.signature_level});
  Task& added = *task;
  tasks_.emplace(&added, std::move(task));
  go_on(added);
}

Status Patcher::advance() {
  if (const Status received = receive_sums(); !received) return received;
  std::vector<Task*> matched;
  {
    const std::lock_guard lock(matched_mutex_);
    matched.swap(matched_);
  }
  for (Task* const task : matched)
    go_on(*task);
  send_requests();
  return {};
}

std::vector<Patcher::Planned> Patcher::take_plans() {
  return std::exchange(planned_, {});
}

// The refiner wants more, or it has a plan.
void Patcher::go_on(Task& task) {
  if (task.is_refused) task.refiner.stop();
  if (const std::optional<delta::Refiner::Ask>& ask = task.refiner.ask(); ask) {
    want(task, *ask);
  } else {
    finish(task);
  }
}

void Patcher::want(Task& task, const delta::Refiner::Ask& ask) {
  const uint64_t most_blocks = kRequestSumBytes / ask.width;
  std::deque<Part>& parts = wanted_[{ask.level, ask.width}];
  task.sums.resize(ask.size_bytes());
  size_t offset = 0;
  for (const delta::BlockRun& run : ask.runs) {
    for (uint64_t first = run.first; first < run.end();) {
      const uint64_t count = std::min(most_blocks, run.end() - first);
      parts.push_back({.task = &task, .run = {first, count}, .sums_offset = offset});
      offset += count * ask.width;
      first += count;
      ++task.parts_wanted;
    }
  }
}

// Finer levels first: those files are nearer to their plans.
void Patcher::send_requests() {
  for (auto group = wanted_.begin(); group != wanted_.end();) {
    auto& [key, parts] = *group;
    while (!parts.empty()) {
      if (flights_.size() >= kRequestsInFlight) return;
      send_request(key.first, key.second, parts);
    }
    group = wanted_.erase(group);
  }
}

void Patcher::send_request(unsigned level, unsigned width, std::deque<Part>& parts) {
  wire::SignatureRequest request{.level = level, .width_bytes = width, .items = {}};
  Flight flight;
  flight.width = width;
  uint64_t bytes = 0;
  while (!parts.empty() && request.items.size() < kMaxSignatureItems) {
    const Part& part = parts.front();
    const uint64_t more = 1 + part.run.count * width;
    if (bytes > 0 && bytes + more > kRequestSumBytes) break;
    bytes += more;
    request.items.push_back({.entry = options_.first_entry + part.task->entry,
                             .first_block = part.run.first,
                             .block_count = part.run.count});
    flight.parts.push_back(part);
    parts.pop_front();
  }
  flights_.emplace(conversation_.send_signature(request, bytes), std::move(flight));
}

Status Patcher::receive_sums() {
  for (auto at = flights_.begin(); at != flights_.end();) {
    const std::optional<Result<Bytes>> reply = conversation_.poll_reply(at->first);
    if (!reply) {
      ++at;
      continue;
    }
    if (!*reply) return std::unexpected(reply->error());
    sum_bytes_ += (*reply)->size();
    const Flight flight = std::move(at->second);
    at = flights_.erase(at);
    if (const Status taken = on_reply(flight, **reply); !taken) return taken;
  }
  return {};
}

Status Patcher::on_reply(const Flight& flight, ByteView reply) {
  Reader reader(reply);
  for (const Part& part : flight.parts) {
    const uint8_t code = reader.u8();  // reader: [sums-status]
    if (code > wire::kLastCode) return fail(Errc::kProtocol, "a signature has an unknown status");
    if (static_cast<wire::Code>(code) == wire::Code::kOk) {
      const ByteView sums = reader.bytes(part.run.count * flight.width);
      std::copy(sums.begin(), sums.end(),
                part.task->sums.begin() + static_cast<ptrdiff_t>(part.sums_offset));
    } else {
      part.task->is_refused = true;
    }
  }
  if (const Status whole = reader.finish("a signature"); !whole) return whole;
  for (const Part& part : flight.parts) {
    if (--part.task->parts_wanted > 0) continue;
    if (part.task->is_refused) {
      go_on(*part.task);
    } else {
      match(*part.task);
    }
  }
  return {};
}

void Patcher::match(Task& task) {
  // Not by way of pool_: that is no pointer any more while the pool is being destroyed.
  MatchPool& pool = *pool_;
  pool.run([this, &task, &pool] {
    const Result<RelPath> path = RelPath::parse(task.basis);
    const Result<UniqueFd> fd = path ? fs::open(fs::read_request(options_.destination_fd, *path))
                                     : Result<UniqueFd>(std::unexpected(path.error()));
    const auto read = [&](uint64_t offset, MutableBytes into) {
      return fd && !stop_.load(std::memory_order_relaxed) && read_exactly(fd->get(), offset, into);
    };
    const auto parallel = [&pool](size_t count, const std::function<void(size_t)>& work) {
      pool.parallel(count, work);
    };
    const Status answered = task.refiner.answer(task.sums, read, parallel);
    CHECK(answered.has_value());  // The sums are as many as were asked for.
    task.sums = {};
    {
      const std::lock_guard lock(matched_mutex_);
      matched_.push_back(&task);
    }
    conversation_.wake();
  });
}

void Patcher::finish(Task& task) {
  Planned planned{.entry = task.entry, .basis = std::move(task.basis), .plan = nullptr};
  if (pays(task.refiner.plan())) {
    planned.plan = std::make_shared<const delta::Plan>(task.refiner.plan());
  }
  planned_.push_back(std::move(planned));
  tasks_.erase(&task);
}

}  // namespace superlifter::client
