#include <ATen/ops/ones_like.h>

#include "run/op.h"

namespace espalier {
namespace {

/// Whether the node asks for elements to be left out at random.
bool drops(const RunView& v) {
  if (v.opset() < 7) return v.node.integer("is_test", 0) == 0 && v.node.number("ratio", 0.5) != 0;
  if (v.opset() < 12 || !v.has(2)) return false;
  for (std::size_t i : {1, 2})
    if (v.has(i) && v.in(i).numel() != 1) v.fail("the ratio and the mode are one number each");
  return v.in(2).item<bool>() && (!v.has(1) || v.in(1).item<double>() != 0);
}

std::vector<at::Tensor> dropout(const RunView& v) {
  if (drops(v)) v.refuse("dropping at random is not supported: export the model for inference");
  const at::Tensor& x = v.in(0);
  if (v.node.output(1).empty()) return {x};
  return {x, at::ones_like(x, at::TensorOptions().dtype(v.opset() < 10 ? x.scalar_type() : at::kBool).requires_grad(false))};
}

const RegisterRun entry{"", "Dropout", dropout};

}  // namespace
}  // namespace espalier
