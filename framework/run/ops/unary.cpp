#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/acos.h>
#include <ATen/ops/acosh.h>
#include <ATen/ops/asin.h>
#include <ATen/ops/asinh.h>
#include <ATen/ops/atan.h>
#include <ATen/ops/atanh.h>
#include <ATen/ops/bitwise_not.h>
#include <ATen/ops/ceil.h>
#include <ATen/ops/celu.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/cosh.h>
#include <ATen/ops/elu.h>
#include <ATen/ops/erf.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/floor.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/hardswish.h>
#include <ATen/ops/isinf.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/isneginf.h>
#include <ATen/ops/isposinf.h>
#include <ATen/ops/leaky_relu.h>
#include <ATen/ops/log.h>
#include <ATen/ops/logical_not.h>
#include <ATen/ops/mish.h>
#include <ATen/ops/neg.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/round.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/sign.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/sinh.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/tan.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/threshold.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include "run/op.h"
#include "run/ops/integers.h"

namespace espalier {
namespace {

using namespace ops;
using Results = std::vector<at::Tensor>;

/// A function that LibTorch has for every floating type.
template <at::Tensor (*function)(const at::Tensor&)>
Results plain(const RunView& v) {
  return {function(v.in(0))};
}
/// One that is for integers, too.
template <at::Tensor (*function)(const at::Tensor&)>
Results numeric(const RunView& v) {
  return {narrowed(function(widened(v.in(0))), v.in(0).scalar_type())};
}

Results round(const RunView& v) { return {at::round(v.in(0))}; }  // halves to even, as ONNX has it
Results identity(const RunView& v) { return {v.in(0)}; }
Results softplus(const RunView& v) { return {at::softplus(v.in(0))}; }
Results softsign(const RunView& v) { return {v.in(0) / (at::abs(v.in(0)) + 1)}; }

/// LibTorch takes the sign of bits, and calls uint64's upper half negative.
Results abs(const RunView& v) { return v.in(0).scalar_type() == at::kUInt64 ? Results{v.in(0)} : numeric<at::abs>(v); }
Results relu(const RunView& v) { return v.in(0).scalar_type() == at::kUInt64 ? Results{v.in(0)} : numeric<at::relu>(v); }

/// NaN has no sign: it stays.
Results sign(const RunView& v) {
  const at::Tensor& x = v.in(0);
  if (x.is_floating_point()) return {at::where(x.isnan(), x, at::sign(x))};
  const at::Tensor wide = widened(x);
  return {narrowed(x.scalar_type() == at::kUInt64 ? wide.ne(0).to(at::kLong) : at::sign(wide), x.scalar_type())};
}

Results is_inf(const RunView& v) {
  const bool negative = v.node.integer("detect_negative", 1) != 0, positive = v.node.integer("detect_positive", 1) != 0;
  const at::Tensor& x = v.in(0);
  if (negative && positive) return {at::isinf(x)};
  if (negative) return {at::isneginf(x)};
  return {positive ? at::isposinf(x) : at::zeros_like(x, at::TensorOptions().dtype(at::kBool))};
}

Results gelu(const RunView& v) {
  const std::string kind = v.node.text("approximate", "none");
  if (kind != "none" && kind != "tanh") v.fail(fmt::format("approximate = \"{}\" is neither none nor tanh", kind));
  return {at::gelu(v.in(0), kind)};
}

Results hard_sigmoid(const RunView& v) {
  return {at::clamp(v.in(0) * v.node.number("alpha", 0.2) + v.node.number("beta", 0.5), 0, 1)};
}
Results hard_swish(const RunView& v) { return {at::hardswish(v.in(0))}; }
Results leaky_relu(const RunView& v) { return {at::leaky_relu(v.in(0), v.node.number("alpha", 0.01))}; }
Results elu(const RunView& v) { return {at::elu(v.in(0), v.node.number("alpha", 1.0))}; }

Results celu(const RunView& v) { return {at::celu(v.in(0), v.node.number("alpha", 1.0))}; }
Results threshold(const RunView& v) { return {at::threshold(v.in(0), v.node.number("alpha", 1.0), 0)}; }

/// Opset 6 wrote down the constants with more digits than the first one.
Results selu(const RunView& v) {
  const bool first = v.opset() < 6;
  const double alpha = v.node.number("alpha", first ? 1.6732 : 1.67326319217681884765625);
  return {at::elu(v.in(0), alpha, v.node.number("gamma", first ? 1.0507 : 1.05070102214813232421875))};
}

Results swish(const RunView& v) {
  const double alpha = v.node.number("alpha", 1.0);
  const at::Tensor& x = v.in(0);
  return {x * at::sigmoid(alpha == 1.0 ? x : x * alpha)};
}

/// What lies between the thresholds is zero, the rest comes closer by the bias. Integers are moved in f64, which holds them.
Results shrink(const RunView& v) {
  const double threshold = v.node.number("lambd", 0.5), bias = v.node.number("bias", 0.0);
  if (v.in(0).scalar_type() == at::kLong || v.in(0).scalar_type() == at::kUInt64) v.refuse("integers of 64 bits are not supported");
  const at::Tensor x = v.in(0).is_floating_point() ? v.in(0) : v.in(0).to(at::kDouble);
  const at::Tensor upper = at::where(x.gt(threshold), x - bias, at::zeros_like(x));
  return {at::where(x.lt(-threshold), x + bias, upper).to(v.in(0).scalar_type())};
}

/// 1 above the threshold, 0 elsewhere, in the type of the input.
Results binarizer(const RunView& v) {
  const at::Tensor& x = v.in(0);
  if (x.scalar_type() == at::kLong || x.scalar_type() == at::kUInt64) v.refuse("integers of 64 bits are not supported");
  const double threshold = v.node.number("threshold", 0.0);
  return {(x.is_floating_point() ? x : x.to(at::kDouble)).gt(threshold).to(x.scalar_type())};
}

/// The upper limit wins where the limits cross.
Results clip(const RunView& v) {
  at::Tensor x = v.in(0);
  if (v.opset() < 11 && v.node.domain.empty()) {
    if (v.node.has("min")) x = at::clamp(x, v.node.number("min", 0));
    if (v.node.has("max")) x = at::clamp(x, std::nullopt, v.node.number("max", 0));
    return {x};
  }
  for (std::size_t i : {1, 2})
    if (v.has(i) && v.in(i).numel() != 1) v.fail(fmt::format("limit {} has {} elements, expected one", i, v.in(i).numel()));
  const auto type = x.scalar_type();
  // Plain numbers keep clamp's own gradient: 1 at the limits, as in PyTorch.
  const auto limit = [&](std::size_t i) { return v.has(i) ? std::optional(ordered(v.in(i)).item()) : std::nullopt; };
  const auto low = limit(1), high = limit(2);
  return {low || high ? restored(at::clamp(ordered(x), low, high), type) : x};
}

const RegisterRun entries[] = {
    {"", "Relu", relu},
    {"", "Sigmoid", plain<at::sigmoid>},
    {"", "Tanh", plain<at::tanh>},
    {"", "Neg", numeric<at::neg>},
    {"", "Abs", abs},
    {"", "Sign", sign},
    {"", "Sqrt", plain<at::sqrt>},
    {"", "Reciprocal", plain<at::reciprocal>},
    {"", "Exp", plain<at::exp>},
    {"", "Log", plain<at::log>},
    {"", "Erf", plain<at::erf>},
    {"", "Sin", plain<at::sin>},
    {"", "Cos", plain<at::cos>},
    {"", "Tan", plain<at::tan>},
    {"", "Asin", plain<at::asin>},
    {"", "Acos", plain<at::acos>},
    {"", "Atan", plain<at::atan>},
    {"", "Sinh", plain<at::sinh>},
    {"", "Cosh", plain<at::cosh>},
    {"", "Asinh", plain<at::asinh>},
    {"", "Acosh", plain<at::acosh>},
    {"", "Atanh", plain<at::atanh>},
    {"", "Floor", plain<at::floor>},
    {"", "Ceil", plain<at::ceil>},
    {"", "Round", round},
    {"", "Identity", identity},
    {"", "Not", plain<at::logical_not>},
    {"", "BitwiseNot", numeric<at::bitwise_not>},
    {"", "IsNaN", plain<at::isnan>},
    {"", "IsInf", is_inf},
    {"", "Softplus", softplus},
    {"", "Softsign", softsign},
    {"", "Gelu", gelu},
    {"", "HardSigmoid", hard_sigmoid},
    {"", "HardSwish", hard_swish},
    {"", "LeakyRelu", leaky_relu},
    {"", "Elu", elu},
    {"", "Celu", celu},
    {"", "Selu", selu},
    {"", "Mish", plain<at::mish>},
    {"", "Swish", swish},
    {"", "Shrink", shrink},
    {"", "ThresholdedRelu", threshold},
    {"", "Clip", clip},
    {"ai.onnx.ml", "Binarizer", binarizer},
};

}  // namespace
}  // namespace espalier
