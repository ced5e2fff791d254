#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>
#include <fmt/format.h>

#include "run/op.h"
#include "run/ops/unsigned.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;

Results matmul(const RunView& v) { return {narrowed(at::matmul(widened(v.in(0)), widened(v.in(1))), v.in(0).scalar_type())}; }

/// alpha · A' · B' + beta · C, C broadcast one way.
Results gemm(const RunView& v) {
  const auto operand = [&](std::size_t i, const char* flag) {
    const at::Tensor& t = v.in(i);
    if (t.dim() != 2) v.fail(fmt::format("input {} has rank {}, expected 2", i, t.dim()));
    return widened(v.node.integer(flag, 0) != 0 ? t.t() : t);
  };
  const at::Tensor a = operand(0, "transA"), b = operand(1, "transB");
  const double alpha = v.node.number("alpha", 1), beta = v.node.number("beta", 1);
  const bool whole = !a.is_floating_point();  // integer products take integer factors only
  if (whole && (alpha != static_cast<std::int64_t>(alpha) || beta != static_cast<std::int64_t>(beta)))
    v.refuse("alpha or beta of an integer product that is no whole number is not supported");
  const auto scalar = [whole](double x) { return whole ? at::Scalar(static_cast<std::int64_t>(x)) : at::Scalar(x); };
  const c10::ScalarType type = v.in(0).scalar_type();
  if (v.has(2)) return {narrowed(at::addmm(widened(v.in(2)), a, b, scalar(beta), scalar(alpha)), type)};
  at::Tensor product = at::mm(a, b);
  return {narrowed(alpha == 1 ? product : product * scalar(alpha), type)};
}

const RegisterRun entries[] = {{"", "MatMul", matmul}, {"", "Gemm", gemm}};

}  // namespace
}  // namespace espalier
