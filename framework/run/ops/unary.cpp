#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/ceil.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/elu.h>
#include <ATen/ops/erf.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/floor.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/hardswish.h>
#include <ATen/ops/leaky_relu.h>
#include <ATen/ops/log.h>
#include <ATen/ops/logical_not.h>
#include <ATen/ops/neg.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/round.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/tanh.h>
#include <fmt/format.h>

#include "run/op.h"
#include "run/tensor.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;

Results relu(const RunView& v) { return {at::relu(v.in(0))}; }
Results sigmoid(const RunView& v) { return {at::sigmoid(v.in(0))}; }
Results tanh(const RunView& v) { return {at::tanh(v.in(0))}; }
Results neg(const RunView& v) { return {at::neg(v.in(0))}; }
Results abs(const RunView& v) { return {at::abs(v.in(0))}; }
Results sqrt(const RunView& v) { return {at::sqrt(v.in(0))}; }
Results reciprocal(const RunView& v) { return {at::reciprocal(v.in(0))}; }
Results exp(const RunView& v) { return {at::exp(v.in(0))}; }
Results log(const RunView& v) { return {at::log(v.in(0))}; }
Results erf(const RunView& v) { return {at::erf(v.in(0))}; }
Results sin(const RunView& v) { return {at::sin(v.in(0))}; }
Results cos(const RunView& v) { return {at::cos(v.in(0))}; }
Results floor(const RunView& v) { return {at::floor(v.in(0))}; }
Results ceil(const RunView& v) { return {at::ceil(v.in(0))}; }
Results round(const RunView& v) { return {at::round(v.in(0))}; }  // halves to even, as ONNX has it
Results identity(const RunView& v) { return {v.in(0)}; }
Results logical_not(const RunView& v) { return {at::logical_not(v.in(0))}; }
Results softplus(const RunView& v) { return {at::softplus(v.in(0))}; }

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

Results swish(const RunView& v) {
  const double alpha = v.node.number("alpha", 1.0);
  const at::Tensor& x = v.in(0);
  return {x * at::sigmoid(alpha == 1.0 ? x : x * alpha)};
}

/// Floating targets stay in the compute type (storage and compute are separate), rounded where the target is narrower.
Results cast(const RunView& v) {
  if (!v.node.has("to")) v.fail("attribute `to` is missing");
  const auto target = static_cast<DType>(v.node.integer("to", 0));
  const bool small = bits(target) <= 4 || (is_floating(target) && bits(target) == 8);  // float8 saturates where LibTorch gives NaN
  if (small) v.fail(fmt::format("a cast to {} is not supported", to_string(target)));
  const at::Tensor& x = v.in(0);
  if (!is_floating(target)) return {x.to(scalar_type(target))};
  const bool narrower = bits(target) < 32 && (v.compute == at::kFloat || v.compute == at::kDouble);
  return {(narrower ? x.to(scalar_type(target)) : x).to(v.compute)};
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
  const bool low = v.has(1), high = v.has(2);
  // Plain numbers keep clamp's own gradient: 1 at the limits, as in PyTorch.
  const auto number = [&](std::size_t i) { return v.in(i).item(); };
  if (low && high) return {at::clamp(x, number(1), number(2))};
  if (low) return {at::clamp(x, number(1))};
  if (high) return {at::clamp(x, std::nullopt, number(2))};
  return {x};
}

const RegisterRun entries[] = {
    {"", "Relu", relu},
    {"", "Sigmoid", sigmoid},
    {"", "Tanh", tanh},
    {"", "Neg", neg},
    {"", "Abs", abs},
    {"", "Sqrt", sqrt},
    {"", "Reciprocal", reciprocal},
    {"", "Exp", exp},
    {"", "Log", log},
    {"", "Erf", erf},
    {"", "Sin", sin},
    {"", "Cos", cos},
    {"", "Floor", floor},
    {"", "Ceil", ceil},
    {"", "Round", round},
    {"", "Identity", identity},
    {"", "Not", logical_not},
    {"", "Softplus", softplus},
    {"", "Gelu", gelu},
    {"", "HardSigmoid", hard_sigmoid},
    {"", "HardSwish", hard_swish},
    {"", "LeakyRelu", leaky_relu},
    {"", "Elu", elu},
    {"", "Swish", swish},
    {"", "Cast", cast},
    {"", "Clip", clip},
};

}  // namespace
}  // namespace espalier
