#include <ATen/ops/convolution.h>
#include <fmt/format.h>

#include "run/window.h"

namespace espalier {
namespace {

/// Grouped and depthwise convolutions included; uneven padding is laid around the input first.
std::vector<at::Tensor> conv(const RunView& v) {
  at::Tensor x = v.in(0);
  const at::Tensor& weight = v.in(1);
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
  std::optional<at::Tensor> bias;
  if (v.has(2)) bias = v.in(2);
  const std::vector<std::int64_t> none(window.rank(), 0);
  return {at::convolution(x, weight, bias, window.strides, padding, window.dilations, false, none, groups)};
}

const RegisterRun entry{"", "Conv", conv};

}  // namespace
}  // namespace espalier
