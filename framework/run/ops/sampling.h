#pragma once
/// Elements of a grid between its points: what GridSample and DeformConv share.
#include <ATen/core/Tensor.h>

#include <vector>

namespace espalier {

struct Sampling {
  enum class Mode { nearest, linear, cubic } mode = Mode::linear;
  enum class Outside { zeros, border, reflection } outside = Outside::zeros;
  bool corners = true;  ///< the grid ends in the middle of its first and last elements, not at their outer edges
};

/// x [batch, C, spatial…], floating, at places[i] [batch, points]: the coordinate on spatial axis i, counted in elements → [batch,
/// C, points]. Differentiable in both. No spatial axis may be empty.
at::Tensor sample(const at::Tensor& x, const std::vector<at::Tensor>& places, const Sampling& how);

}  // namespace espalier
