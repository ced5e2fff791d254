#include "run/ops/unsigned.h"

#include <ATen/ops/bitwise_xor.h>

#include <limits>

namespace espalier {
namespace {

at::Tensor flipped(const at::Tensor& x) { return at::bitwise_xor(x, std::numeric_limits<std::int64_t>::min()); }

}  // namespace

at::Tensor as_signed(const at::Tensor& x) {
  switch (x.scalar_type()) {
    case at::kUInt16:
      return x.view(at::kShort);
    case at::kUInt32:
      return x.view(at::kInt);
    case at::kUInt64:
      return x.view(at::kLong);
    default:
      return x;
  }
}

at::Tensor widened(const at::Tensor& x) {
  if (x.scalar_type() == at::kUInt64) return x.view(at::kLong);
  return x.scalar_type() == at::kUInt16 || x.scalar_type() == at::kUInt32 ? x.to(at::kLong) : x;
}

at::Tensor ordered(const at::Tensor& x) { return x.scalar_type() == at::kUInt64 ? flipped(x.view(at::kLong)) : widened(x); }

at::Tensor narrowed(const at::Tensor& x, c10::ScalarType type) {
  if (x.scalar_type() == type) return x;
  return x.element_size() == static_cast<std::int64_t>(c10::elementSize(type)) ? x.view(type) : x.to(type);
}

at::Tensor from_ordered(const at::Tensor& x, c10::ScalarType type) { return narrowed(type == at::kUInt64 ? flipped(x) : x, type); }

}  // namespace espalier
