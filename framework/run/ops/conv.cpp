#include <ATen/ops/convolution.h>
#include <fmt/format.h>

#include "run/ops/convolve.h"
#include "run/window.h"

namespace espalier {

/// Grouped and depthwise convolutions included; uneven padding is laid around the input first.
at::Tensor convolve(const RunView& v, at::Tensor x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  if (weight.dim() < 3) v.fail(fmt::format("the weights have rank {}, expected 3 to 5", weight.dim()));
  const Window window(v, x, weight.sizes().slice(2).vec());
  const std::int64_t groups = v.node.integer("group", 1);
  if (groups < 1 || x.size(1) != weight.size(1) * groups || weight.size(0) % groups != 0)
    v.fail(fmt::format("{} groups do not divide {} input channels into weights of {} inputs and {} outputs", groups, x.size(1),
                       weight.size(1), weight.size(0)));
  std::vector<std::int64_t> padding = window.begin;
  if (!window.symmetric()) {
    x = pad_spatial(x, window.begin, window.end, 0);
    padding.assign(window.rank(), 0);
  }
  const std::vector<std::int64_t> none(window.rank(), 0);
  return at::convolution(x, weight, bias, window.strides, padding, window.dilations, false, none, groups);
}

namespace {

std::vector<at::Tensor> conv(const RunView& v) {
  std::optional<at::Tensor> bias;
  if (v.has(2)) bias = v.in(2);
  return {convolve(v, v.in(0), v.in(1), bias)};
}

const RegisterRun entry{"", "Conv", conv};

}  // namespace
}  // namespace espalier
