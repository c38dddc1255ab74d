#include "client/match_pool.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "core/base/check.h"

namespace superlifter::client {

// Work that several threads share. Owned by all of them together: one that comes late finds
// nothing left to do.
struct MatchPool::Batch {
  const std::function<void(size_t)>* work = nullptr;  // Lives until all pieces have ended.
  size_t count = 0;
  std::atomic<size_t> next = 0;  // Relaxed: it hands out numbers.
  std::mutex mutex;
  std::condition_variable ended;
  size_t ended_count = 0;  // Guarded by mutex; publishes what the pieces did.
};

MatchPool::MatchPool(unsigned threads) {
  CHECK(threads > 0);
  for (unsigned i = 0; i < threads; ++i)
    threads_.emplace_back([this] { run_thread(); });
}

MatchPool::~MatchPool() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    tasks_.clear();
    changed_.notify_all();
  }
  for (std::thread& thread : threads_)
    thread.join();
}

void MatchPool::run(std::function<void()> task) {
  const std::lock_guard lock(mutex_);
  tasks_.push_back(std::move(task));
  changed_.notify_one();
}

void MatchPool::parallel(size_t count, const std::function<void(size_t)>& work) {
  if (count < 2 || threads_.size() < 2) {
    for (size_t i = 0; i < count; ++i)
      work(i);
    return;
  }
  const auto batch = std::make_shared<Batch>();
  batch->work = &work;
  batch->count = count;
  {
    // Before the tasks of other files: those have not begun.
    const std::lock_guard lock(mutex_);
    for (size_t i = 1; i < std::min(threads_.size(), count); ++i)
      tasks_.emplace_front([batch] { work_on(*batch); });
    changed_.notify_all();
  }
  work_on(*batch);
  std::unique_lock lock(batch->mutex);
  batch->ended.wait(lock, [&] { return batch->ended_count == count; });
}

void MatchPool::work_on(Batch& batch) {
  size_t done = 0;
  for (size_t i = batch.next.fetch_add(1, std::memory_order_relaxed); i < batch.count;
       i = batch.next.fetch_add(1, std::memory_order_relaxed)) {
    (*batch.work)(i);
    ++done;
  }
  if (done == 0) return;
  const std::lock_guard lock(batch.mutex);
  batch.ended_count += done;
  if (batch.ended_count == batch.count) batch.ended.notify_one();
}

void MatchPool::run_thread() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || !tasks_.empty(); });
    if (stop_) return;
    const std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    lock.lock();
  }
}

}  // namespace superlifter::client
