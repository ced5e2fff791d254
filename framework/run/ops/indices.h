#pragma once
/// Indices that count from the front or, negative, from the end.
#include <ATen/core/Tensor.h>

#include "run/op.h"

namespace espalier {

/// As int64 from the front. Those out of range are left to LibTorch's own check.
at::Tensor from_front(const RunView& view, const at::Tensor& indices, std::int64_t length);
/// The last axis of `indices` names one index for each of `lengths`: their place in row-major order. Throws where one is out of
/// range.
at::Tensor flat_places(const RunView& view, const at::Tensor& indices, at::IntArrayRef lengths);

}  // namespace espalier
