#pragma once
/// Sliding windows over the spatial axes of [batch, channels, spatial…]: what convolutions and pools share.
#include <cstdint>
#include <vector>

#include "run/op.h"

namespace espalier {

/// One entry for each spatial axis.
struct Window {
  std::vector<std::int64_t> kernel, strides, dilations, begin, end;  ///< begin, end: padding
  std::vector<std::int64_t> output;                                  ///< windows along the axis

  /// Attributes kernel_shape (or `kernel`, where the weights say it), strides, dilations, pads, auto_pad and ceil_mode.
  /// Windows that would start in the padding at the end are not counted. Throws through view.fail().
  Window(const RunView& view, const at::Tensor& x, std::vector<std::int64_t> kernel);
  std::size_t rank() const { return kernel.size(); }
  bool symmetric() const { return begin == end; }
  /// Padding at the end that lets exactly `output` windows fit; more than `end` where ceil_mode adds one.
  std::vector<std::int64_t> reach(const at::Tensor& x) const;
};

/// Attribute `name`: one number for each spatial axis, none below `least`; all `fallback` where it is absent. Throws through
/// view.fail().
std::vector<std::int64_t> spatial(const RunView& view, const char* name, std::size_t axes, std::int64_t fallback,
                                  std::int64_t least);

/// x with its spatial axes padded by `value`.
at::Tensor pad_spatial(const at::Tensor& x, const std::vector<std::int64_t>& begin, const std::vector<std::int64_t>& end,
                       double value);

}  // namespace espalier
