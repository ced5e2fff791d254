#include <ATen/ops/cat.h>

#include "run/op.h"

namespace espalier {
namespace {

std::vector<at::Tensor> concat(const RunView& v) {
  if (!v.node.has("axis") && v.opset() >= 4) v.fail("attribute `axis` is missing");
  const std::int64_t axis = v.axis("axis", 1, v.in(0).dim());
  for (std::size_t i = 1; i < v.inputs.size(); ++i)
    if (v.in(i).dim() != v.in(0).dim()) v.fail("inputs differ in rank");
  return {v.inputs.size() == 1 ? v.in(0) : at::cat(v.inputs, axis)};
}

const RegisterRun entry{"", "Concat", concat};

}  // namespace
}  // namespace espalier
