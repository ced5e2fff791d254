#include <ATen/ops/cat.h>

#include "run/op.h"
#include "run/ops/unsigned.h"

namespace espalier {
namespace {

std::vector<at::Tensor> concat(const RunView& v) {
  if (!v.node.has("axis") && v.opset() >= 4) v.fail("attribute `axis` is missing");
  const std::int64_t axis = v.axis("axis", 1, v.in(0).dim());
  for (std::size_t i = 1; i < v.inputs.size(); ++i)
    if (v.in(i).dim() != v.in(0).dim()) v.fail("inputs differ in rank");
  if (v.inputs.size() == 1) return {v.in(0)};
  if (v.in(0).is_floating_point()) return {at::cat(v.inputs, axis)};
  std::vector<at::Tensor> parts;
  for (std::size_t i = 0; i < v.inputs.size(); ++i) {
    if (v.in(i).scalar_type() != v.in(0).scalar_type()) v.fail("inputs are of different types");
    parts.push_back(as_signed(v.in(i)));
  }
  return {narrowed(at::cat(parts, axis), v.in(0).scalar_type())};
}

const RegisterRun entry{"", "Concat", concat};

}  // namespace
}  // namespace espalier
