#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

namespace espalier {

/// Keys and values that grow in place. While a scope lives on a thread, an Attention whose past is the front of one of its buffers
/// writes the new rows behind it instead of copying both into a new tensor; what it returns as present is again a front of the
/// buffer.
class GrowingCache {
 public:
  /// Buffers are [batch, heads, capacity, size], contiguous.
  explicit GrowingCache(const std::vector<at::Tensor>& buffers);
  ~GrowingCache();
  GrowingCache(const GrowingCache&) = delete;
  GrowingCache& operator=(const GrowingCache&) = delete;

  /// past followed by `fresh` along axis 2, in place; undefined when past is no front of a buffer of this thread's scope, or the
  /// buffer is full.
  static at::Tensor append(const at::Tensor& past, const at::Tensor& fresh);

 private:
  const std::vector<at::Tensor>& buffers_;
  GrowingCache* outer_;
};

}  // namespace espalier
