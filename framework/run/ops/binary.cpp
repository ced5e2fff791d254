#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>
#include <ATen/ops/bitwise_and.h>
#include <ATen/ops/bitwise_or.h>
#include <ATen/ops/bitwise_xor.h>
#include <ATen/ops/copysign.h>
#include <ATen/ops/div.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/fmod.h>
#include <ATen/ops/ge.h>
#include <ATen/ops/gt.h>
#include <ATen/ops/le.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/logical_or.h>
#include <ATen/ops/logical_xor.h>
#include <ATen/ops/lt.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/remainder.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/where.h>
#include <fmt/format.h>

#include "run/op.h"
#include "run/ops/integers.h"

namespace espalier {
namespace {

using namespace ops;
using Results = std::vector<at::Tensor>;
using Step = at::Tensor (*)(const at::Tensor&, const at::Tensor&);

/// Before opset 7, broadcasting was an attribute with rules of its own.
const RunView& checked(const RunView& v) {
  if (v.node.integer("broadcast", 0) != 0) v.refuse("the `broadcast` attribute (opset 6 and older) is not supported");
  return v;
}

at::Tensor sum_of(const at::Tensor& a, const at::Tensor& b) { return at::add(a, b); }

Results arithmetic(const RunView& v, Step step) {
  const at::Tensor& a = checked(v).in(0);
  return {narrowed(step(widened(a), widened(v.in(1))), a.scalar_type())};
}

Results add(const RunView& v) { return arithmetic(v, sum_of); }
Results sub(const RunView& v) {
  return arithmetic(v, [](const at::Tensor& a, const at::Tensor& b) { return at::sub(a, b); });
}
Results mul(const RunView& v) { return arithmetic(v, at::mul); }

/// Integers are divided towards zero.
Results div(const RunView& v) {
  const at::Tensor& a = checked(v).in(0);
  return {a.is_floating_point() ? at::div(a, v.in(1)) : quotient(a, v.in(1))};
}

Results mod(const RunView& v) {
  const at::Tensor &a = v.in(0), &b = v.in(1);
  const bool towards_zero = v.node.integer("fmod", 0) != 0;
  if (!a.is_floating_point()) return {rest(a, b, towards_zero)};
  if (towards_zero) return {at::fmod(a, b)};
  const at::Tensor left = at::remainder(a, b);
  return {at::where(left.eq(0), at::copysign(left, b), left)};  // a zero has the divisor's sign, too
}

at::Tensor power(const at::Tensor& base, const at::Tensor& exponent) {
  if (base.is_floating_point() && !exponent.is_floating_point()) return at::pow(base, exponent.to(base.scalar_type()));
  // In f32, integers would lose digits.
  if (!base.is_floating_point() && exponent.is_floating_point()) return at::pow(base.to(at::kDouble), exponent.to(at::kDouble));
  return at::pow(widened(base), widened(exponent));
}

/// The result has the base's type, whatever the exponent's.
Results pow(const RunView& v) {
  const at::Tensor& base = checked(v).in(0);
  const at::Tensor& exponent = v.in(1);
  const bool integers = !base.is_floating_point() && !exponent.is_floating_point();
  if (integers && widened(exponent).lt(0).any().item<bool>()) v.fail("an integer to a negative power, or to 2^63 or more");
  const bool number = exponent.dim() == 0 && !exponent.requires_grad() && base.is_floating_point();
  return {(number ? at::pow(base, widened(exponent).item()) : power(base, exponent)).to(base.scalar_type())};
}

Results fold(const RunView& v, Step step) {
  at::Tensor out = ordered(v.in(0));
  for (std::size_t i = 1; i < v.inputs.size(); ++i) out = step(out, ordered(v.in(i)));
  return {restored(out, v.in(0).scalar_type())};
}
Results min(const RunView& v) { return fold(v, at::minimum); }
Results max(const RunView& v) { return fold(v, at::maximum); }

Results sum(const RunView& v) {
  at::Tensor out = widened(v.in(0));
  for (std::size_t i = 1; i < v.inputs.size(); ++i) out = at::add(out, widened(v.in(i)));
  return {narrowed(out, v.in(0).scalar_type())};
}
Results mean(const RunView& v) {
  if (!v.in(0).is_floating_point()) v.refuse("a mean of integers is not supported");
  return {sum(v)[0] / static_cast<double>(v.inputs.size())};
}

Results compared(const RunView& v, Step step) { return {step(ordered(v.in(0)), ordered(v.in(1)))}; }
Results equal(const RunView& v) { return compared(v, at::eq); }
Results less(const RunView& v) { return compared(v, at::lt); }
Results less_or_equal(const RunView& v) { return compared(v, at::le); }
Results greater(const RunView& v) { return compared(v, at::gt); }
Results greater_or_equal(const RunView& v) { return compared(v, at::ge); }
Results logical_and(const RunView& v) { return {at::logical_and(v.in(0), v.in(1))}; }
Results logical_or(const RunView& v) { return {at::logical_or(v.in(0), v.in(1))}; }
Results logical_xor(const RunView& v) { return {at::logical_xor(v.in(0), v.in(1))}; }

Results bitwise_and(const RunView& v) { return arithmetic(v, at::bitwise_and); }
Results bitwise_or(const RunView& v) { return arithmetic(v, at::bitwise_or); }
Results bitwise_xor(const RunView& v) { return arithmetic(v, at::bitwise_xor); }

Results bit_shift(const RunView& v) {
  const std::string direction = v.node.text("direction", "");
  if (direction != "LEFT" && direction != "RIGHT") v.fail(fmt::format("direction is '{}'", direction));
  if (c10::isSignedType(v.in(0).scalar_type())) v.refuse("integers with a sign are not shifted");
  return {shifted(v.in(0), v.in(1), direction == "LEFT")};
}

Results where(const RunView& v) {
  if (v.in(0).scalar_type() != at::kBool) v.fail("the condition is not boolean");
  return {narrowed(at::where(v.in(0), widened(v.in(1)), widened(v.in(2))), v.in(1).scalar_type())};
}

Results prelu(const RunView& v) {
  const at::Tensor& x = v.in(0);
  if (x.scalar_type() == at::kUInt32 || x.scalar_type() == at::kUInt64) return {x};  // never below zero
  return {at::where(x.lt(0), at::mul(x, v.in(1)), x)};
}

Results swiglu(const RunView& v) {
  const at::Tensor& gate = v.in(0);
  return {gate * at::sigmoid(gate * v.node.number("alpha", 1.0)) * v.in(1)};
}

const RegisterRun entries[] = {
    {"", "Add", add},
    {"", "Sub", sub},
    {"", "Mul", mul},
    {"", "Div", div},
    {"", "Mod", mod},
    {"", "Pow", pow},
    {"", "Min", min},
    {"", "Max", max},
    {"", "Sum", sum},
    {"", "Mean", mean},
    {"", "Equal", equal},
    {"", "Less", less},
    {"", "LessOrEqual", less_or_equal},
    {"", "Greater", greater},
    {"", "GreaterOrEqual", greater_or_equal},
    {"", "And", logical_and},
    {"", "Or", logical_or},
    {"", "Xor", logical_xor},
    {"", "BitwiseAnd", bitwise_and},
    {"", "BitwiseOr", bitwise_or},
    {"", "BitwiseXor", bitwise_xor},
    {"", "BitShift", bit_shift},
    {"", "Where", where},
    {"", "PRelu", prelu},
    {"", "SwiGLU", swiglu},
};

}  // namespace
}  // namespace espalier
