#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/avg_pool3d.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/div.h>
#include <ATen/ops/max_pool1d_with_indices.h>
#include <ATen/ops/max_pool2d_with_indices.h>
#include <ATen/ops/max_pool3d_with_indices.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/remainder.h>
#include <ATen/ops/scatter.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <tuple>

#include "run/window.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;
using Lengths = std::vector<std::int64_t>;

std::tuple<at::Tensor, at::Tensor> max_windows(const at::Tensor& x, const Window& w, const Lengths& padding) {
  switch (w.rank()) {
    case 1:
      return at::max_pool1d_with_indices(x, w.kernel, w.strides, padding, w.dilations);
    case 2:
      return at::max_pool2d_with_indices(x, w.kernel, w.strides, padding, w.dilations);
    default:
      return at::max_pool3d_with_indices(x, w.kernel, w.strides, padding, w.dilations);
  }
}

/// A window that meets nothing but padding has no maximum and no mean.
void check_covered(const RunView& v, const Window& w, const at::Tensor& x) {
  for (std::size_t i = 0; i < w.rank(); ++i) {
    const std::int64_t length = x.size(static_cast<std::int64_t>(i) + 2), span = (w.kernel[i] - 1) * w.dilations[i] + 1;
    const bool steps_over = w.begin[i] > 0 && length < w.dilations[i];
    if (w.begin[i] >= span || (w.output[i] - 1) * w.strides[i] >= length + w.begin[i] || steps_over)
      v.refuse("windows that lie in the padding altogether are not supported");
  }
}

/// LibTorch numbers within a channel that `begin` and `end` elements of padding surround, ONNX within the whole tensor, by rows or
/// (storage_order 1) by columns within the channel.
at::Tensor places(const RunView& v, at::Tensor indices, const at::Tensor& x, const Lengths& begin, const Lengths& end) {
  const bool columns = v.node.integer("storage_order", 0) != 0;
  const std::size_t axes = begin.size();
  std::vector<at::Tensor> coordinates(axes);
  for (std::size_t i = axes; i-- > 0;) {
    const std::int64_t length = x.size(static_cast<std::int64_t>(i) + 2), padded = begin[i] + length + end[i];
    // Where all elements of a window are infinitely small, padding may have won.
    coordinates[i] = at::clamp(at::remainder(indices, padded) - begin[i], 0, length - 1);
    indices = at::div(indices, padded, "floor");
  }
  std::int64_t step = 1;
  at::Tensor place;
  for (std::size_t k = 0; k < axes; ++k) {
    const std::size_t i = columns ? k : axes - 1 - k;
    place = place.defined() ? place + coordinates[i] * step : coordinates[i];
    step *= x.size(static_cast<std::int64_t>(i) + 2);
  }
  Lengths shape(axes + 2, 1);
  shape[0] = x.size(0);
  shape[1] = x.size(1);
  return place + (at::arange(x.size(0) * x.size(1), at::kLong) * step).reshape(shape);
}

Results max_pool(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const Window w(v, x, {});
  check_covered(v, w, x);
  const bool whole = !x.is_floating_point();
  if (whole && x.scalar_type() != at::kChar && x.scalar_type() != at::kByte)
    v.refuse("only floating and 8-bit inputs are supported");
  const at::Tensor floating = whole ? x.to(at::kFloat) : x;  // 8-bit integers are exact in f32
  const Lengths reach = w.reach(x), none(w.rank(), 0);
  bool plain = w.begin == reach;  // LibTorch takes even padding of at most half a window
  for (std::size_t i = 0; i < w.rank(); ++i) plain = plain && 2 * w.begin[i] <= w.kernel[i];
  // The least value of the type never wins against an element.
  auto [y, at] = plain ? max_windows(floating, w, w.begin)
                       : max_windows(pad_spatial(floating, w.begin, reach, -std::numeric_limits<double>::infinity()), w, none);
  Results out{whole ? y.to(x.scalar_type()) : y};
  if (!v.node.output(1).empty()) out.push_back(places(v, at, x, plain ? none : w.begin, plain ? none : reach));
  return out;
}

/// The elements at `places` of the pooled tensor's original, which was zero elsewhere.
Results max_unpool(const RunView& v) {
  const at::Tensor &x = v.in(0), &indices = v.in(1);
  if (x.dim() < 3 || indices.sizes() != x.sizes()) v.fail("the places do not fit the input");
  const auto axes = static_cast<std::size_t>(x.dim() - 2);
  if (!v.node.has("kernel_shape")) v.fail("attribute kernel_shape is missing");
  const Lengths kernel = spatial(v, "kernel_shape", axes, 1, 1), strides = spatial(v, "strides", axes, 1, 1);
  const Lengths pads = spatial(v, "pads", 2 * axes, 0, 0);
  Lengths shape{x.size(0), x.size(1)};
  std::int64_t count = shape[0] * shape[1];
  for (std::size_t i = 0; i < axes; ++i) {
    const std::int64_t length = (x.size(static_cast<std::int64_t>(i) + 2) - 1) * strides[i] + kernel[i] - pads[i] - pads[axes + i];
    if (length < 1 || count > (std::int64_t{1} << 40) / length)
      v.fail(fmt::format("spatial axis {} would have length {}", i, length));
    shape.push_back(length);
    count *= length;
  }
  at::Tensor y = at::scatter(at::zeros({count}, x.options()), 0, indices.reshape({-1}), x.reshape({-1})).reshape(shape);
  if (!v.has(2)) return {y};
  const Lengths asked = v.integers(2);
  if (asked.size() != shape.size()) v.fail(fmt::format("output_shape has {} entries for rank {}", asked.size(), shape.size()));
  Lengths pads_after;  // LibTorch counts from the last axis
  for (std::size_t i = shape.size(); i-- > 0;) {
    if (asked[i] < shape[i] || asked[i] > std::int64_t{1} << 40)
      v.refuse(fmt::format("an output_shape of {} where {} are made is not supported", asked[i], shape[i]));
    pads_after.push_back(0);
    pads_after.push_back(asked[i] - shape[i]);
  }
  return {at::constant_pad_nd(y, pads_after, 0)};
}

/// Sum over each window, one axis after the other, an element of all windows at a time.
at::Tensor sum_spaced(at::Tensor x, const Window& w) {
  for (std::size_t i = 0; i < w.rank(); ++i) {
    const std::int64_t last = (w.output[i] - 1) * w.strides[i] + 1;
    at::Tensor sum;
    for (std::int64_t k = 0; k < w.kernel[i]; ++k) {
      const std::int64_t first = k * w.dilations[i];
      const at::Tensor part = x.slice(static_cast<std::int64_t>(i) + 2, first, first + last, w.strides[i]);
      sum = sum.defined() ? sum + part : part;
    }
    x = sum;
  }
  return x;
}

/// Sum over each window, without padding.
at::Tensor sum_windows(const at::Tensor& x, const Window& w) {
  const Lengths none(w.rank(), 0);
  if (w.dilations != Lengths(w.rank(), 1)) return sum_spaced(x, w);
  if (w.rank() == 1) return at::avg_pool2d(x.unsqueeze(2), {1, w.kernel[0]}, {1, w.strides[0]}, {0, 0}, false, true, 1).squeeze(2);
  if (w.rank() == 2) return at::avg_pool2d(x, w.kernel, w.strides, none, false, true, 1);
  return at::avg_pool3d(x, w.kernel, w.strides, none, false, true, 1);
}

/// Sum over the window by the number of elements it counts: those of the input, and the declared padding where it is included;
/// never what ceil_mode lets a window reach beyond.
Results average_pool(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const Window w(v, x, {});
  const bool padding_counts = v.node.integer("count_include_pad", 0) != 0;
  if (!padding_counts) check_covered(v, w, x);
  const Lengths reach = w.reach(x), none(w.rank(), 0);
  Lengths counted(x.sizes().begin(), x.sizes().end()), rest = reach;
  counted[0] = counted[1] = 1;
  for (std::size_t i = 0; i < w.rank(); ++i) {
    if (!padding_counts) continue;
    counted[i + 2] += w.begin[i] + w.end[i];
    rest[i] = reach[i] - w.end[i];
  }
  const at::Tensor ones = at::ones(counted, x.options());
  const at::Tensor number = sum_windows(pad_spatial(ones, padding_counts ? none : w.begin, rest, 0), w);
  return {sum_windows(pad_spatial(x, w.begin, reach, 0), w) / number};
}

/// The exponent of a norm: an integer from opset 2 on.
double exponent(const RunView& v) {
  const auto found = v.node.attributes.find("p");
  double p = 2;
  if (found != v.node.attributes.end()) {
    if (const auto* real = std::get_if<double>(&found->second)) {
      p = *real;
    } else {
      p = static_cast<double>(v.node.integer("p", 2));
    }
  }
  if (!(p > 0)) v.fail(fmt::format("p is {}", p));
  return p;
}

/// The root of a sum that may be zero, where its slope has no bound: a channel of zeros has a gradient of zero.
at::Tensor root(const at::Tensor& sum, double p) {
  if (p == 1) return sum;
  const at::Tensor nothing = sum.eq(0);
  return at::where(nothing, 0.0, at::where(nothing, 1.0, sum).pow(1 / p));
}

Results lp_pool(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const Window w(v, x, {});
  const double p = exponent(v);
  return {root(sum_windows(pad_spatial(at::pow(at::abs(x), p), w.begin, w.reach(x), 0), w), p)};
}

Lengths spatial_axes(const RunView& v) {
  if (v.in(0).dim() < 3) v.fail("the input has no spatial axes");
  Lengths axes;
  for (std::int64_t i = 2; i < v.in(0).dim(); ++i) axes.push_back(i);
  return axes;
}

Results global_average_pool(const RunView& v) { return {at::mean(v.in(0), spatial_axes(v), true)}; }
Results global_max_pool(const RunView& v) { return {at::amax(v.in(0), spatial_axes(v), true)}; }
Results global_lp_pool(const RunView& v) {
  const double p = exponent(v);
  return {root(at::pow(at::abs(v.in(0)), p).sum(spatial_axes(v), true), p)};
}

const RegisterRun entries[] = {{"", "MaxPool", max_pool},
                               {"", "MaxUnpool", max_unpool},
                               {"", "AveragePool", average_pool},
                               {"", "LpPool", lp_pool},
                               {"", "GlobalAveragePool", global_average_pool},
                               {"", "GlobalMaxPool", global_max_pool},
                               {"", "GlobalLpPool", global_lp_pool}};

}  // namespace
}  // namespace espalier
