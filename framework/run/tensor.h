#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <string>

#include "graph/graph.h"

namespace espalier {

using TensorMap = std::map<std::string, at::Tensor>;

/// ScalarType of a DType; throws Error(unsupported) for types that LibTorch has no storage for (i4, u4, string).
c10::ScalarType scalar_type(DType type);
DType dtype_of(c10::ScalarType type);
/// A tensor over the same bytes (no copy; the bytes are read-only: never write in place). int4 unpacks to int8 (a copy).
at::Tensor to_aten(const Tensor& tensor);
/// A graph tensor that owns a contiguous copy of `tensor`'s elements (or shares them when contiguous on the CPU).
Tensor from_aten(const at::Tensor& tensor);

}  // namespace espalier
