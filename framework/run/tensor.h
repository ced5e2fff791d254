#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <string>

#include "graph/graph.h"

namespace espalier {

using TensorMap = std::map<std::string, at::Tensor>;

/// ScalarType of a DType; integers of 2 and 4 bits lie in int8 and uint8. Throws Error(unsupported) for types that LibTorch has no
/// storage for (string, float4e2m1).
c10::ScalarType scalar_type(DType type);
DType dtype_of(c10::ScalarType type);
/// A tensor over the same bytes (no copy; the bytes are read-only: never write in place). Packed types are unpacked (a copy):
/// integers to int8 or uint8, float4e2m1 to float32.
at::Tensor to_aten(const Tensor& tensor);
/// A graph tensor that owns a contiguous copy of `tensor`'s elements (or shares them when contiguous on the CPU).
Tensor from_aten(const at::Tensor& tensor);

}  // namespace espalier
