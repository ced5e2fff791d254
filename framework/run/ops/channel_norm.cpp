#include <ATen/TensorOperators.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/where.h>
#include <fmt/format.h>

#include <algorithm>

#include "run/op.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;

/// Scale and bias hold one number for each of `count` channels or groups.
void check_vectors(const RunView& v, std::int64_t count) {
  for (std::size_t i = 1; i < 3; ++i)
    if (v.in(i).dim() != 1 || v.in(i).size(0) != count) v.fail(fmt::format("input {} does not hold {} numbers", i, count));
}

/// A group for each channel.
Results instance_normalization(const RunView& v) {
  const at::Tensor& x = v.in(0);
  if (x.dim() < 3) v.fail("the input has no spatial axes");
  check_vectors(v, x.size(1));
  return {at::group_norm(x, x.size(1), v.in(1), v.in(2), v.node.number("epsilon", 1e-5))};
}

Results group_normalization(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const std::int64_t groups = v.node.integer("num_groups", 0);
  if (x.dim() < 2 || groups < 1 || x.size(1) % groups != 0) v.fail(fmt::format("{} groups do not divide the channels", groups));
  const bool of_groups = v.opset() < 21;  // one scale and bias a group, not a channel
  check_vectors(v, of_groups ? groups : x.size(1));
  const auto spread = [&](const at::Tensor& t) { return of_groups ? at::repeat_interleave(t, x.size(1) / groups, 0) : t; };
  return {at::group_norm(x, groups, spread(v.in(1)), spread(v.in(2)), v.node.number("epsilon", 1e-5))};
}

Results mean_variance_normalization(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const std::vector<std::int64_t> axes = v.wrap(v.node.integers("axes", {0, 2, 3}), x.dim());
  if (axes.empty()) v.refuse("no axes at all are not supported");
  const at::Tensor centred = x - at::mean(x, axes, true);
  const at::Tensor variance = at::mean(centred * centred, axes, true), flat = variance.eq(0);
  // The slope of a root has no bound at zero, where nothing varies and the result is zero.
  return {centred / (at::where(flat, 0.0, at::sqrt(at::where(flat, 1.0, variance))) + 1e-9)};
}

/// Divided by a power of the mean square over neighbouring channels: of an even number, one more lies behind.
Results lrn(const RunView& v) {
  const at::Tensor& x = v.in(0);
  if (x.dim() < 2) v.fail("the input has no channels");
  const std::int64_t size = v.node.integer("size", 0), channels = x.size(1);
  if (size < 1) v.fail(fmt::format("size is {}", size));
  const std::int64_t most = std::max<std::int64_t>(channels - 1, 0);
  const std::int64_t before = std::min((size - 1) / 2, most), after = std::min(size - 1 - (size - 1) / 2, most);
  std::vector<std::int64_t> pads(static_cast<std::size_t>(2 * (x.dim() - 2)), 0);  // LibTorch counts from the last axis
  pads.push_back(before);
  pads.push_back(after);
  const at::Tensor squares = at::constant_pad_nd(x * x, pads, 0);
  at::Tensor sum;
  for (std::int64_t k = 0; k <= before + after; ++k) {
    const at::Tensor part = squares.narrow(1, k, channels);
    sum = sum.defined() ? sum + part : part;
  }
  const double alpha = v.node.number("alpha", 1e-4), beta = v.node.number("beta", 0.75), bias = v.node.number("bias", 1);
  return {x / at::pow(sum * (alpha / static_cast<double>(size)) + bias, beta)};
}

const RegisterRun entries[] = {{"", "InstanceNormalization", instance_normalization},
                               {"", "GroupNormalization", group_normalization},
                               {"", "MeanVarianceNormalization", mean_variance_normalization},
                               {"", "LRN", lrn}};

}  // namespace
}  // namespace espalier
