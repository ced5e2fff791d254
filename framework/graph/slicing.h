#pragma once
/// Tensors without some indices of their axes.
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace espalier {

/// The indices that are kept of an axis, ascending; nullptr where nothing of it goes.
using KeptIndices = std::function<const std::vector<std::int64_t>*(std::size_t axis)>;

/// The elements at the kept indices. Throws Error(unsupported), naming the tensor, for strings.
Tensor sliced(const Tensor& tensor, const std::string& name, const KeptIndices& kept);
/// The shape alone of what sliced() would make, where the values are many (kValuesFrom); else the same as sliced().
Tensor sliced_outline(const Tensor& tensor, const std::string& name, const KeptIndices& kept);

/// Elements of a 4-bit tensor, one a byte; ONNX packs the first of a pair into the low half.
std::vector<std::byte> unpack_nibbles(const Tensor& tensor);
std::vector<std::byte> pack_nibbles(const std::vector<std::byte>& elements);

}  // namespace espalier
