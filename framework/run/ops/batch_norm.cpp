#include <ATen/ops/batch_norm.h>
#include <fmt/format.h>

#include "run/op.h"

namespace espalier {
namespace {

/// The inference form: running statistics are constants; gradients reach the input, scale and bias.
std::vector<at::Tensor> batch_normalization(const RunView& v) {
  if (v.node.integer("training_mode", 0) != 0) v.fail("training_mode = 1 is not supported; set it to 0 (inference form)");
  if (v.opset() < 9 && v.node.integer("spatial", 1) == 0) v.fail("spatial = 0 is not supported");
  const at::Tensor& x = v.in(0);
  if (x.dim() < 2) v.fail(fmt::format("the input has rank {}, expected at least 2", x.dim()));
  for (std::size_t i = 1; i < 5; ++i)
    if (v.in(i).dim() != 1 || v.in(i).size(0) != x.size(1))
      v.fail(fmt::format("input {} does not hold one number for each of the {} channels", i, x.size(1)));
  return {at::batch_norm(x, v.in(1), v.in(2), v.in(3), v.in(4), false, 0.0, v.node.number("epsilon", 1e-5), false)};
}

const RegisterRun entry{"", "BatchNormalization", batch_normalization};

}  // namespace
}  // namespace espalier
