#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/where.h>
#include <fmt/format.h>

#include "run/op.h"

namespace espalier {
namespace {

/// Nothing but zeros stays so.
std::vector<at::Tensor> lp_normalization(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const std::int64_t p = v.node.integer("p", 2), axis = v.axis("axis", -1, x.dim());
  if (p != 1 && p != 2) v.fail(fmt::format("p is {}, 1 or 2 is needed", p));
  const at::Tensor norm = at::linalg_vector_norm(x, p, axis, true);
  return {x / at::where(norm.eq(0), 1.0, norm)};
}

const RegisterRun entry{"", "LpNormalization", lp_normalization};

}  // namespace
}  // namespace espalier
