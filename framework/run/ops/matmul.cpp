#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>
#include <fmt/format.h>

#include "run/op.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;

Results matmul(const RunView& v) { return {at::matmul(v.in(0), v.in(1))}; }

/// alpha · A' · B' + beta · C, C broadcast one way.
Results gemm(const RunView& v) {
  const auto operand = [&](std::size_t i, const char* flag) {
    const at::Tensor& t = v.in(i);
    if (t.dim() != 2) v.fail(fmt::format("input {} has rank {}, expected 2", i, t.dim()));
    return v.node.integer(flag, 0) != 0 ? t.t() : t;
  };
  const at::Tensor a = operand(0, "transA"), b = operand(1, "transB");
  const double alpha = v.node.number("alpha", 1), beta = v.node.number("beta", 1);
  const bool whole = !a.is_floating_point();  // integer products take integer factors only
  if (whole && (alpha != static_cast<std::int64_t>(alpha) || beta != static_cast<std::int64_t>(beta)))
    v.fail("alpha and beta of an integer product must be whole numbers");
  const auto scalar = [whole](double x) { return whole ? at::Scalar(static_cast<std::int64_t>(x)) : at::Scalar(x); };
  if (v.has(2)) return {at::addmm(v.in(2), a, b, scalar(beta), scalar(alpha))};
  at::Tensor product = at::mm(a, b);
  return {alpha == 1 ? product : product * scalar(alpha)};
}

const RegisterRun entries[] = {{"", "MatMul", matmul}, {"", "Gemm", gemm}};

}  // namespace
}  // namespace espalier
