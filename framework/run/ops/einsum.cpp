#include "graph/ops/einsum.h"

#include <ATen/ops/einsum.h>

#include "run/op.h"
#include "run/ops/unsigned.h"

namespace espalier {
namespace {

std::vector<at::Tensor> einsum(const RunView& v) {
  std::string problem;
  const auto equation = ops::parse_equation(v.node.text("equation", ""), v.inputs.size(), problem);
  if (!equation) v.fail(problem);
  const c10::ScalarType type = v.in(0).scalar_type();
  std::vector<at::Tensor> operands;
  for (std::size_t i = 0; i < v.inputs.size(); ++i) {
    if (v.in(i).scalar_type() != type) v.fail("inputs are of different types");
    operands.push_back(widened(v.in(i)));
  }
  return {narrowed(at::einsum(equation->text(), operands).to(operands[0].scalar_type()), type)};
}

const RegisterRun entry{"", "Einsum", einsum};

}  // namespace
}  // namespace espalier
