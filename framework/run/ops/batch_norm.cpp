#include <ATen/TensorOperators.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/var_mean.h>
#include <fmt/format.h>

#include "run/op.h"

namespace espalier {
namespace {

/// Normalized by what the batch itself has, and the running statistics moved towards that. The variance is the population's.
std::vector<at::Tensor> in_training(const RunView& v) {
  const at::Tensor& x = v.in(0);
  if (x.numel() == 0) v.fail("an empty batch has no mean");
  const double momentum = v.node.number("momentum", 0.9);
  std::vector<std::int64_t> axes{0};
  for (std::int64_t i = 2; i < x.dim(); ++i) axes.push_back(i);
  const at::Tensor y = at::batch_norm(x, v.in(1), v.in(2), {}, {}, true, 0.0, v.node.number("epsilon", 1e-5), false);
  const auto [variance, mean] = at::var_mean(x, axes, false, false);
  return {y, v.in(3) * momentum + mean * (1 - momentum), v.in(4) * momentum + variance * (1 - momentum)};
}

/// In the inference form running statistics are constants; gradients reach the input, scale and bias.
std::vector<at::Tensor> batch_normalization(const RunView& v) {
  if (v.opset() < 9 && v.node.integer("spatial", 1) == 0) v.refuse("spatial = 0 is not supported");
  if (v.opset() < 7 && v.node.integer("is_test", 0) == 0) v.refuse("the training form of old opsets is not supported");
  const at::Tensor& x = v.in(0);
  if (x.dim() < 2) v.fail(fmt::format("the input has rank {}, expected at least 2", x.dim()));
  for (std::size_t i = 1; i < 5; ++i)
    if (v.in(i).dim() != 1 || v.in(i).size(0) != x.size(1))
      v.fail(fmt::format("input {} does not hold one number for each of the {} channels", i, x.size(1)));
  if (v.node.integer("training_mode", 0) != 0) return in_training(v);
  return {at::batch_norm(x, v.in(1), v.in(2), v.in(3), v.in(4), false, 0.0, v.node.number("epsilon", 1e-5), false)};
}

const RegisterRun entry{"", "BatchNormalization", batch_normalization};

}  // namespace
}  // namespace espalier
