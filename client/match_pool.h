// MatchPool: threads for work that needs no network: matching blocks of files.
//
// Two kinds of work share the threads. A task is one file's step; many small files keep all threads
// busy with a task each. A large file's task splits its work with parallel(): the thread that calls
// it takes pieces too, so it never waits for a thread that is not there, and tasks of other files
// go on beside it.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace superlifter::client {

class MatchPool {
 public:
  explicit MatchPool(unsigned threads);
  // Tasks that have not begun are dropped; those that have are waited for.
  ~MatchPool();
  MatchPool(const MatchPool&) = delete;
  MatchPool& operator=(const MatchPool&) = delete;

  // Runs `task` on one of the threads, in the order of the calls. Thread-safe.
  void run(std::function<void()> task);

  // Calls work(0) … work(count - 1) on this thread and on others that are free, each once, and
  // comes back when all have ended. Call from a task.
  void parallel(size_t count, const std::function<void(size_t)>& work);

 private:
  struct Batch;

  static void work_on(Batch& batch);
  void run_thread();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;  // Guarded by mutex_.
  bool stop_ = false;                        // Guarded by mutex_.
  std::vector<std::thread> threads_;
};

}  // namespace superlifter::client
