#pragma once
#include <functional>

#include "graph/graph.h"

namespace espalier {

/// Puts a tensor away: the same elements, where they take no memory that the system cannot take back (formats/model_artifact.h and
/// formats/spilled_tensors.h have one each).
using TensorStore = std::function<Tensor(Tensor)>;

/// The store of those who look at shapes alone: readers and cuts then make no values of large tensors, which read as zeros and take
/// neither time nor memory.
TensorStore shapes_only();
bool is_shapes_only(const TensorStore& store);

/// A tensor of zeros that take no memory. Throws Error(resource) where there is no room for it in the address space.
Tensor zeros_without_memory(DType dtype, std::vector<std::int64_t> shape);

/// Bytes from which on a tensor's values are not made; below it they may be shapes and indices themselves.
constexpr std::size_t kValuesFrom = 1 << 16;

}  // namespace espalier
