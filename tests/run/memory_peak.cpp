#include "memory_peak.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <atomic>

namespace espalier::test {
namespace {

std::atomic<std::int64_t> now{0}, peak{0};

/// LibTorch's own allocator, with the size in front of each block.
class Counting final : public c10::Allocator {
 public:
  explicit Counting(c10::Allocator* inner) : inner_(inner) {}
  c10::DataPtr allocate(std::size_t size) override {
    c10::DataPtr block = inner_->allocate(size);
    auto* held = new Held{std::move(block), static_cast<std::int64_t>(size)};
    const std::int64_t sum = now += held->size;
    std::int64_t seen = peak;
    while (sum > seen && !peak.compare_exchange_weak(seen, sum)) {}
    return {held->block.get(), held, &release, held->block.device()};
  }
  void copy_data(void* to, const void* from, std::size_t count) const override { default_copy_data(to, from, count); }
  c10::Allocator* inner() const { return inner_; }

 private:
  struct Held {
    c10::DataPtr block;
    std::int64_t size;
  };
  static void release(void* pointer) {
    auto* held = static_cast<Held*>(pointer);
    now -= held->size;
    delete held;
  }
  c10::Allocator* inner_;
};

Counting& counting() {
  static Counting allocator(c10::GetCPUAllocator());
  return allocator;
}

}  // namespace

MemoryPeak::MemoryPeak() {
  Counting& allocator = counting();
  now = peak = 0;
  c10::SetCPUAllocator(&allocator, 1);
}
MemoryPeak::~MemoryPeak() { c10::SetCPUAllocator(counting().inner(), 1); }
std::int64_t MemoryPeak::bytes() const { return peak; }
std::int64_t MemoryPeak::held() const { return now; }

}  // namespace espalier::test
