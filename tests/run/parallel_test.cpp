#include "run/parallel.h"

#include <ATen/Parallel.h>

#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

using espalier::parallel_for;

namespace {

class Threads {
 public:
  explicit Threads(int count) : before_(at::get_num_threads()) { at::set_num_threads(count); }
  ~Threads() { at::set_num_threads(before_); }

 private:
  int before_;
};

std::set<std::thread::id> threads_of(std::int64_t count, std::int64_t grain) {
  std::mutex mutex;
  std::set<std::thread::id> seen;
  parallel_for(0, count, grain, [&](std::int64_t, std::int64_t) {
    const std::lock_guard lock(mutex);
    seen.insert(std::this_thread::get_id());
  });
  return seen;
}

}  // namespace

TEST_CASE("a loop is shared among as many threads as LibTorch is told to use") {
  const Threads two(2);
  CHECK(threads_of(1000, 1).size() == 2);
  CHECK(threads_of(1000, 2000) == std::set{std::this_thread::get_id()});  // too little for more than one
  const Threads one(1);
  CHECK(threads_of(1000, 1) == std::set{std::this_thread::get_id()});
}

TEST_CASE("a loop goes over every index once, and an empty one over none") {
  const Threads three(3);
  std::vector<std::atomic<int>> visits(1001);
  parallel_for(1, 1001, 7, [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t i = from; i < to; ++i) ++visits[static_cast<std::size_t>(i)];
  });
  CHECK(visits[0] == 0);
  for (std::size_t i = 1; i < visits.size(); ++i) CHECK(visits[i] == 1);
  parallel_for(5, 5, 1, [](std::int64_t, std::int64_t) { FAIL("nothing to do"); });
}

TEST_CASE("an exception of a loop's thread reaches the caller") {
  const Threads two(2);
  CHECK_THROWS_AS(parallel_for(0, 100, 1,
                               [](std::int64_t from, std::int64_t) {
                                 if (from > 0) throw std::runtime_error("second");
                               }),
                  std::runtime_error);
}
