#include "memory_peak.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <unordered_map>

namespace espalier::test {
namespace {

/// LibTorch's own allocator, with the sizes of its blocks beside them. A block's context is the block itself: oneDNN takes its
/// scratch memory through raw_allocate(), which insists on it, and may give back to this allocator what the inner one gave, and the
/// other way.
class Counting final : public c10::Allocator {
 public:
  explicit Counting(c10::Allocator* inner) : inner_(inner) {}
  c10::DataPtr allocate(std::size_t size) override {
    void* block = inner_->raw_allocate(size);
    if (block) {
      const std::scoped_lock lock(mutex_);
      sizes_[block] = static_cast<std::int64_t>(size);
      now += static_cast<std::int64_t>(size);
      peak = std::max(peak, now);
    }
    return {block, block, &release, at::Device(at::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t count) const override { default_copy_data(to, from, count); }
  c10::Allocator* inner() const { return inner_; }
  void restart() {
    const std::scoped_lock lock(mutex_);
    sizes_.clear();
    now = peak = 0;
  }

  std::int64_t now = 0, peak = 0;

 private:
  static void release(void* block);

  c10::Allocator* inner_;
  std::mutex mutex_;
  std::unordered_map<void*, std::int64_t> sizes_;
};

Counting& counting() {
  static Counting allocator(c10::GetCPUAllocator());
  return allocator;
}

void Counting::release(void* block) {
  Counting& own = counting();
  {
    const std::scoped_lock lock(own.mutex_);
    if (const auto held = own.sizes_.find(block); held != own.sizes_.end()) {
      own.now -= held->second;
      own.sizes_.erase(held);
    }
  }
  own.inner_->raw_deallocate(block);
}

}  // namespace

MemoryPeak::MemoryPeak() {
  counting().restart();
  c10::SetCPUAllocator(&counting(), 1);
}
MemoryPeak::~MemoryPeak() { c10::SetCPUAllocator(counting().inner(), 1); }
std::int64_t MemoryPeak::bytes() const { return counting().peak; }
std::int64_t MemoryPeak::held() const { return counting().now; }

}  // namespace espalier::test
