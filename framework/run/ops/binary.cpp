#include <ATen/ops/add.h>
#include <ATen/ops/div.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/ge.h>
#include <ATen/ops/gt.h>
#include <ATen/ops/le.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/logical_or.h>
#include <ATen/ops/lt.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/where.h>

#include "run/op.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;

/// Before opset 7, broadcasting was an attribute with rules of its own.
const RunView& checked(const RunView& v) {
  if (v.node.integer("broadcast", 0) != 0) v.fail("the `broadcast` attribute (opset 6 and older) is not supported");
  return v;
}

Results add(const RunView& v) { return {at::add(checked(v).in(0), v.in(1))}; }
Results sub(const RunView& v) { return {at::sub(checked(v).in(0), v.in(1))}; }
Results mul(const RunView& v) { return {at::mul(checked(v).in(0), v.in(1))}; }

/// Integers are divided towards zero.
Results div(const RunView& v) {
  const at::Tensor& a = checked(v).in(0);
  if (a.is_floating_point()) return {at::div(a, v.in(1))};
  return {at::div(a, v.in(1), "trunc")};
}

/// The result has the base's type, whatever the exponent's.
Results pow(const RunView& v) {
  const at::Tensor& base = checked(v).in(0);
  const at::Tensor& exponent = v.in(1);
  if (exponent.dim() == 0 && !exponent.requires_grad()) return {at::pow(base, exponent.item()).to(base.scalar_type())};
  return {at::pow(base, exponent).to(base.scalar_type())};
}

Results fold(const RunView& v, at::Tensor (*step)(const at::Tensor&, const at::Tensor&)) {
  at::Tensor out = v.in(0);
  for (std::size_t i = 1; i < v.inputs.size(); ++i) out = step(out, v.in(i));
  return {out};
}
Results min(const RunView& v) { return fold(v, at::minimum); }
Results max(const RunView& v) { return fold(v, at::maximum); }

Results equal(const RunView& v) { return {at::eq(v.in(0), v.in(1))}; }
Results less(const RunView& v) { return {at::lt(v.in(0), v.in(1))}; }
Results less_or_equal(const RunView& v) { return {at::le(v.in(0), v.in(1))}; }
Results greater(const RunView& v) { return {at::gt(v.in(0), v.in(1))}; }
Results greater_or_equal(const RunView& v) { return {at::ge(v.in(0), v.in(1))}; }
Results logical_and(const RunView& v) { return {at::logical_and(v.in(0), v.in(1))}; }
Results logical_or(const RunView& v) { return {at::logical_or(v.in(0), v.in(1))}; }

Results where(const RunView& v) {
  if (v.in(0).scalar_type() != at::kBool) v.fail("the condition is not boolean");
  return {at::where(v.in(0), v.in(1), v.in(2))};
}

const RegisterRun entries[] = {
    {"", "Add", add},         {"", "Sub", sub},
    {"", "Mul", mul},         {"", "Div", div},
    {"", "Pow", pow},         {"", "Min", min},
    {"", "Max", max},         {"", "Equal", equal},
    {"", "Less", less},       {"", "LessOrEqual", less_or_equal},
    {"", "Greater", greater}, {"", "GreaterOrEqual", greater_or_equal},
    {"", "And", logical_and}, {"", "Or", logical_or},
    {"", "Where", where},
};

}  // namespace
}  // namespace espalier
