#include "run/cache.h"

#include <c10/core/GradMode.h>

namespace espalier {
namespace {

thread_local GrowingCache* innermost = nullptr;

}  // namespace

GrowingCache::GrowingCache(const std::vector<at::Tensor>& buffers) : buffers_(buffers), outer_(innermost) { innermost = this; }
GrowingCache::~GrowingCache() { innermost = outer_; }

at::Tensor GrowingCache::append(const at::Tensor& past, const at::Tensor& fresh) {
  if (!innermost || c10::GradMode::is_enabled() || past.dim() != 4 || fresh.dim() != 4) return {};
  for (const at::Tensor& buffer : innermost->buffers_) {
    if (!buffer.is_alias_of(past) || buffer.storage_offset() != past.storage_offset() || buffer.strides() != past.strides())
      continue;
    const std::int64_t held = past.size(2), length = fresh.size(2);
    if (buffer.scalar_type() != fresh.scalar_type() || buffer.size(0) != fresh.size(0) || buffer.size(1) != fresh.size(1) ||
        buffer.size(3) != fresh.size(3) || length > buffer.size(2) - held)
      return {};
    buffer.narrow(2, held, length).copy_(fresh);
    return buffer.narrow(2, 0, held + length);
  }
  return {};
}

}  // namespace espalier
