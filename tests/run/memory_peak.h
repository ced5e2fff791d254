#pragma once
#include <cstdint>

namespace espalier::test {

/// Counts the bytes that LibTorch's CPU allocator hands out while it lives: the highest sum at one time above what was there at the
/// start. One at a time.
class MemoryPeak {
 public:
  MemoryPeak();
  ~MemoryPeak();
  MemoryPeak(const MemoryPeak&) = delete;
  std::int64_t bytes() const;
  std::int64_t held() const;  ///< what is there now above the start
};

}  // namespace espalier::test
