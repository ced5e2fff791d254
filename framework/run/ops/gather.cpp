#include <ATen/TensorOperators.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/where.h>

#include "run/op.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;

/// Indices as int64 from the front. Those out of range are left to LibTorch's own check.
at::Tensor from_front(const RunView& v, const at::Tensor& indices, std::int64_t length) {
  if (!c10::isIntegralType(indices.scalar_type(), false)) v.fail("indices are not integers");
  const at::Tensor wide = indices.to(at::kLong);
  return at::where(wide.lt(0), wide + length, wide);
}

Results gather(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const std::int64_t axis = v.axis("axis", 0, x.dim());
  const at::Tensor indices = from_front(v, v.in(1), x.size(axis));
  std::vector<std::int64_t> shape(x.sizes().begin(), x.sizes().begin() + axis);
  shape.insert(shape.end(), indices.sizes().begin(), indices.sizes().end());
  shape.insert(shape.end(), x.sizes().begin() + axis + 1, x.sizes().end());
  return {at::index_select(x, axis, indices.reshape({-1})).reshape(shape)};
}

Results gather_elements(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const std::int64_t axis = v.axis("axis", 0, x.dim());
  if (v.in(1).dim() != x.dim()) v.fail("data and indices differ in rank");
  return {at::gather(x, axis, from_front(v, v.in(1), x.size(axis)))};
}

const RegisterRun entries[] = {{"", "Gather", gather}, {"", "GatherElements", gather_elements}};

}  // namespace
}  // namespace espalier
