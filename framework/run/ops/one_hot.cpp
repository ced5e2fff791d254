#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/where.h>
#include <fmt/format.h>

#include "run/op.h"
#include "run/ops/unsigned.h"

namespace espalier {
namespace {

/// Negative indices count from the end; those out of range are nowhere on.
std::vector<at::Tensor> one_hot(const RunView& v) {
  const at::Tensor &indices = v.in(0), &depth = v.in(1), &values = v.in(2);
  if (depth.numel() != 1) v.fail(fmt::format("depth has {} elements, expected one", depth.numel()));
  if (values.dim() != 1 || values.size(0) != 2) v.fail("values are not two numbers, off and on");
  const auto count = depth.to(at::kLong).item<std::int64_t>();
  if (count < 1) v.fail(fmt::format("depth is {}", count));
  const std::int64_t axis = v.axis("axis", -1, indices.dim() + 1);
  at::Tensor wide = widened(indices).to(at::kLong);
  wide = at::where(wide.lt(0), wide + count, wide).unsqueeze(axis);
  std::vector<std::int64_t> shape(static_cast<std::size_t>(wide.dim()), 1);
  shape[static_cast<std::size_t>(axis)] = count;
  const at::Tensor on = wide.eq(at::arange(count, at::kLong).reshape(shape)), each = as_signed(values);
  return {narrowed(at::where(on, each.select(0, 1), each.select(0, 0)), values.scalar_type())};
}

const RegisterRun entry{"", "OneHot", one_hot};

}  // namespace
}  // namespace espalier
