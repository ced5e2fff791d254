#include "graph/slicing.h"

#include <cstring>

#include "graph/tensor_store.h"
#include "sdk/error.h"

namespace espalier {
namespace {

using Indices = std::vector<std::int64_t>;

/// Keeps `kept` of an axis; neighbours are copied in one piece.
std::vector<std::byte> gather(std::span<const std::byte> bytes, const std::vector<std::int64_t>& shape, std::size_t axis,
                              const Indices& kept, std::size_t element) {
  std::size_t outer = 1, inner = element;
  for (std::size_t i = 0; i < axis; ++i) outer *= static_cast<std::size_t>(shape[i]);
  for (std::size_t i = axis + 1; i < shape.size(); ++i) inner *= static_cast<std::size_t>(shape[i]);
  struct Run {
    std::size_t from, length;
  };
  std::vector<Run> runs;
  for (auto index : kept) {
    const auto from = static_cast<std::size_t>(index) * inner;
    if (!runs.empty() && runs.back().from + runs.back().length == from)
      runs.back().length += inner;
    else
      runs.push_back({from, inner});
  }
  const auto row = static_cast<std::size_t>(shape[axis]) * inner;
  std::vector<std::byte> out(outer * kept.size() * inner);
  std::byte* to = out.data();
  for (std::size_t o = 0; o < outer; ++o) {
    const std::byte* base = bytes.data() + o * row;
    for (const auto& run : runs) {
      std::memcpy(to, base + run.from, run.length);
      to += run.length;
    }
  }
  return out;
}

}  // namespace

std::vector<std::byte> unpack_nibbles(const Tensor& tensor) {
  std::vector<std::byte> out(static_cast<std::size_t>(tensor.count()));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = (i % 2 ? tensor.bytes[i / 2] >> 4 : tensor.bytes[i / 2]) & std::byte{15};
  return out;
}

std::vector<std::byte> pack_nibbles(const std::vector<std::byte>& elements) {
  std::vector<std::byte> out((elements.size() + 1) / 2);
  for (std::size_t i = 0; i < elements.size(); ++i) out[i / 2] |= i % 2 ? elements[i] << 4 : elements[i];
  return out;
}

Tensor sliced(const Tensor& tensor, const std::string& name, const KeptIndices& kept) {
  Tensor result = tensor;
  for (std::size_t axis = 0; axis < tensor.shape.size(); ++axis) {
    const auto* list = kept(axis);
    if (!list) continue;
    if (tensor.dtype == DType::string) throw_unsupported("a tensor of strings cannot be cut", name);
    auto shape = result.shape;
    shape[axis] = static_cast<std::int64_t>(list->size());
    const int width = bits(result.dtype);
    result = width == 4
                 ? Tensor::own(result.dtype, shape, pack_nibbles(gather(unpack_nibbles(result), result.shape, axis, *list, 1)))
                 : Tensor::own(result.dtype, shape,
                               gather(result.bytes, result.shape, axis, *list, static_cast<std::size_t>(width) / 8));
  }
  return result;
}

Tensor sliced_outline(const Tensor& tensor, const std::string& name, const KeptIndices& kept) {
  if (tensor.bytes.size() < kValuesFrom) return sliced(tensor, name, kept);
  auto shape = tensor.shape;
  for (std::size_t axis = 0; axis < shape.size(); ++axis)
    if (const auto* list = kept(axis)) shape[axis] = static_cast<std::int64_t>(list->size());
  return zeros_without_memory(tensor.dtype, std::move(shape));
}

}  // namespace espalier
