#pragma once
/// Weights on integer grids: which grid, and the nearest codes on it. Needs no data.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace espalier {

/// An integer grid for a weight. Signed grids lie around zero; the others have a zero point, and hold zero exactly.
struct Grid {
  int bits = 8;           ///< 8 or 4
  bool symmetric = true;  ///< i8 in ±127, i4 in −8…7; else u8, u4 with zero points
  bool search = false;    ///< each scale by least squared error (shrunk step by step), else from the largest value
  /// i8 in ±63: products of u8 and i8 in pairs fit 16 bits, which processors without VNNI need (ONNX Runtime, FBGEMM and oneDNN
  /// alike saturate there).
  bool reduced = false;

  DType code_type() const;
  double low() const;
  double high() const;
};

/// Which elements of a weight share a scale.
struct Sharing {
  std::optional<std::size_t> axis;  ///< one scale for each index of it; without it and without a block, one for the tensor
  std::int64_t block = 0;           ///< with it: one for each `block` indices along `axis`, at every place of the other axes

  /// Shape of scales and zero points, as DequantizeLinear wants it.
  std::vector<std::int64_t> shape(const std::vector<std::int64_t>& weight) const;
};

struct Rounded {
  Tensor codes, scale;
  std::optional<Tensor> zero;  ///< of the codes' type and the scales' shape
  double squared_error = 0, squared = 0;
};

/// Nearest codes, half to even. Scales are rounded to the weight's own type first, so that what readers compute is what was
/// measured; shares of nothing but zeros get scale 1. The result depends on the bytes alone, not on threads. Throws
/// Error(invalid_input) naming a weight that is not finite.
Rounded round_to_grid(const std::string& name, const Tensor& weight, const Grid& grid, const Sharing& sharing);

/// The largest divisor of `width` up to `group` (at least a quarter of it), so that every group is whole: OpenVINO refuses a last
/// one that is not. Nothing when there is none.
std::optional<std::int64_t> whole_group(std::int64_t width, std::int64_t group);

}  // namespace espalier
