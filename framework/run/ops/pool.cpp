#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/avg_pool3d.h>
#include <ATen/ops/max_pool1d_with_indices.h>
#include <ATen/ops/max_pool2d_with_indices.h>
#include <ATen/ops/max_pool3d_with_indices.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/ones.h>

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

/// LibTorch numbers within a channel, ONNX within the whole tensor.
at::Tensor whole_tensor_indices(const at::Tensor& indices, const at::Tensor& x) {
  const std::int64_t planes = x.size(0) * x.size(1);
  Lengths shape(static_cast<std::size_t>(x.dim()), 1);
  shape[0] = x.size(0);
  shape[1] = x.size(1);
  return indices + (at::arange(planes, at::kLong) * (planes > 0 ? x.numel() / planes : 0)).reshape(shape);
}

Results max_pool(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const Window w(v, x, {});
  const bool indices = !v.node.output(1).empty();
  const Lengths reach = w.reach(x);
  bool plain = x.is_floating_point() && w.begin == reach;  // LibTorch takes even padding of at most half a window
  for (std::size_t i = 0; i < w.rank(); ++i) plain = plain && 2 * w.begin[i] <= w.kernel[i];
  if (plain) {
    auto [y, at] = max_windows(x, w, w.begin);
    if (!indices) return {y};
    if (v.node.integer("storage_order", 0) != 0) v.fail("indices with storage_order = 1 are not supported");
    return {y, whole_tensor_indices(at, x)};
  }
  if (indices) v.fail("indices with uneven padding or ceil_mode are not supported");
  // The least value of the type never wins against an element. 8-bit integers are exact in f32.
  const bool whole = !x.is_floating_point();
  if (whole && x.scalar_type() != at::kChar && x.scalar_type() != at::kByte) v.fail("only floating and 8-bit inputs are supported");
  const at::Tensor padded = pad_spatial(whole ? x.to(at::kFloat) : x, w.begin, reach, -std::numeric_limits<double>::infinity());
  const at::Tensor y = std::get<0>(max_windows(padded, w, Lengths(w.rank(), 0)));
  return {whole ? y.to(x.scalar_type()) : y};
}

/// Sum over each window, without padding.
at::Tensor sum_windows(const at::Tensor& x, const Window& w) {
  const Lengths none(w.rank(), 0);
  if (w.rank() == 1) return at::avg_pool2d(x.unsqueeze(2), {1, w.kernel[0]}, {1, w.strides[0]}, {0, 0}, false, true, 1).squeeze(2);
  if (w.rank() == 2) return at::avg_pool2d(x, w.kernel, w.strides, none, false, true, 1);
  return at::avg_pool3d(x, w.kernel, w.strides, none, false, true, 1);
}

/// Sum over the window by the number of elements it counts: those of the input, and the declared padding where it is included;
/// never what ceil_mode lets a window reach beyond.
Results average_pool(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const Window w(v, x, {});
  for (std::int64_t dilation : w.dilations)
    if (dilation != 1) v.fail("dilations other than 1 are not supported");
  const bool padding_counts = v.node.integer("count_include_pad", 0) != 0;
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

Results global_average_pool(const RunView& v) {
  const at::Tensor& x = v.in(0);
  if (x.dim() < 3) v.fail("the input has no spatial axes");
  Lengths axes;
  for (std::int64_t i = 2; i < x.dim(); ++i) axes.push_back(i);
  return {at::mean(x, axes, true)};
}

const RegisterRun entries[] = {
    {"", "MaxPool", max_pool}, {"", "AveragePool", average_pool}, {"", "GlobalAveragePool", global_average_pool}};

}  // namespace
}  // namespace espalier
