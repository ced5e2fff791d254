#include <fmt/format.h>

#include "formats/torchscript/script.h"

namespace espalier::torchscript {
namespace {

std::string number(const NodeScript& s, const char* attribute, double fallback) {
  return number_text(s.node.number(attribute, fallback));
}

struct Plain {
  const char *op, *expression;  // {0}, {1}: the inputs
};

/// What is one expression, whatever the types.
constexpr Plain plain[] = {
    {"Identity", "{0}"},
    {"Sigmoid", "torch.sigmoid({0})"},
    {"Tanh", "torch.tanh({0})"},
    {"Relu", "torch.relu({0})"},
    {"Neg", "torch.neg({0})"},
    {"Abs", "torch.abs({0})"},
    {"Sqrt", "torch.sqrt({0})"},
    {"Reciprocal", "torch.reciprocal({0})"},
    {"Exp", "torch.exp({0})"},
    {"Log", "torch.log({0})"},
    {"Erf", "torch.erf({0})"},
    {"Sin", "torch.sin({0})"},
    {"Cos", "torch.cos({0})"},
    {"Tan", "torch.tan({0})"},
    {"Asin", "torch.asin({0})"},
    {"Acos", "torch.acos({0})"},
    {"Atan", "torch.atan({0})"},
    {"Sinh", "torch.sinh({0})"},
    {"Cosh", "torch.cosh({0})"},
    {"Asinh", "torch.asinh({0})"},
    {"Acosh", "torch.acosh({0})"},
    {"Atanh", "torch.atanh({0})"},
    {"Floor", "torch.floor({0})"},
    {"Ceil", "torch.ceil({0})"},
    {"Round", "torch.round({0})"},
    {"Not", "torch.logical_not({0})"},
    {"BitwiseNot", "torch.bitwise_not({0})"},
    {"IsNaN", "torch.isnan({0})"},
    {"Softplus", "torch.softplus({0})"},
    {"Softsign", "torch.div({0}, torch.add(torch.abs({0}), 1))"},
    {"HardSwish", "torch.hardswish({0})"},
    {"Mish", "torch.mish({0})"},
    {"Add", "torch.add({0}, {1})"},
    {"Sub", "torch.sub({0}, {1})"},
    {"Mul", "torch.mul({0}, {1})"},
    {"Equal", "torch.eq({0}, {1})"},
    {"Less", "torch.lt({0}, {1})"},
    {"LessOrEqual", "torch.le({0}, {1})"},
    {"Greater", "torch.gt({0}, {1})"},
    {"GreaterOrEqual", "torch.ge({0}, {1})"},
    {"And", "torch.logical_and({0}, {1})"},
    {"Or", "torch.logical_or({0}, {1})"},
    {"Xor", "torch.logical_xor({0}, {1})"},
    {"BitwiseAnd", "torch.bitwise_and({0}, {1})"},
    {"BitwiseOr", "torch.bitwise_or({0}, {1})"},
    {"BitwiseXor", "torch.bitwise_xor({0}, {1})"},
    {"PRelu", "torch.where(torch.lt({0}, 0), torch.mul({0}, {1}), {0})"},
};

void write_plain(NodeScript& s) {
  if (s.node.integer("broadcast", 0) != 0) s.refuse("the `broadcast` attribute (opset 6 and older)");
  for (const Plain& entry : plain) {
    if (s.node.op != entry.op) continue;
    const std::string first = s.in(0), second = s.node.inputs.size() > 1 && s.has(1) ? s.in(1) : std::string();
    s.give(fmt::format(fmt::runtime(entry.expression), first, second));
    return;
  }
  s.refuse("no phrase");
}

void div(NodeScript& s) {
  if (s.node.integer("broadcast", 0) != 0) s.refuse("the `broadcast` attribute (opset 6 and older)");
  s.give(fmt::format("torch.div({}, {}{})", s.in(0), s.in(1), s.floating(0) ? "" : ", rounding_mode=\"trunc\""));
}

void mod(NodeScript& s) {
  if (s.node.integer("fmod", 0) != 0) return s.give(fmt::format("torch.fmod({}, {})", s.in(0), s.in(1)));
  const std::string rest = s.let(fmt::format("torch.remainder({}, {})", s.in(0), s.in(1)));
  if (!s.floating(0)) return s.give(rest);
  s.give(fmt::format("torch.where(torch.eq({0}, 0), torch.copysign({0}, {1}), {0})", rest, s.in(1)));
}

void pow(NodeScript& s) {
  if (s.node.integer("broadcast", 0) != 0) s.refuse("the `broadcast` attribute (opset 6 and older)");
  const DType base = s.info(0).dtype, exponent = s.info(1).dtype;
  if (base == exponent || is_floating(base)) {
    const Tensor* known = s.constant(1);
    const bool scalar = known && known->shape.empty() && is_floating(known->dtype) && known->dtype == base;
    if (scalar) return s.give(fmt::format("torch.pow({}, {})", s.in(0), number_text(known->numbers().at(0))));
    const std::string power = base == exponent ? s.in(1) : fmt::format("{}.to({})", s.in(1), *type_number(base));
    return s.give(fmt::format("torch.pow({}, {})", s.in(0), power));
  }
  const bool wide = is_floating(exponent);
  s.give(fmt::format("torch.pow({0}.to({2}), {1}.to({2})).to({3})", s.in(0), s.in(1), wide ? 7 : 4, *type_number(base)));
}

std::string fold(NodeScript& s, const char* function) {
  std::string all = s.in(0);
  for (std::size_t i = 1; i < s.node.inputs.size(); ++i) all = s.let(fmt::format("torch.{}({}, {})", function, all, s.in(i)));
  return all;
}
void min(NodeScript& s) { s.give(fold(s, "minimum")); }
void max(NodeScript& s) { s.give(fold(s, "maximum")); }
void sum(NodeScript& s) { s.give(fold(s, "add")); }
void mean(NodeScript& s) {
  if (!s.floating(0)) s.refuse("a mean of integers");
  s.give(fmt::format("torch.div({}, {})", fold(s, "add"), s.node.inputs.size()));
}

void where(NodeScript& s) { s.give(fmt::format("torch.where({}, {}, {})", s.in(0), s.in(1), s.in(2))); }

/// NaN has no sign: it stays.
void sign(NodeScript& s) {
  if (!s.floating(0)) return s.give(fmt::format("torch.sign({})", s.in(0)));
  s.give(fmt::format("torch.where(torch.isnan({0}), {0}, torch.sign({0}))", s.in(0)));
}

void is_inf(NodeScript& s) {
  const bool negative = s.node.integer("detect_negative", 1) != 0, positive = s.node.integer("detect_positive", 1) != 0;
  if (!negative && !positive) return s.give(fmt::format("torch.ne({0}, {0}).fill_(0)", s.in(0)));
  s.give(fmt::format("torch.{}({})", negative && positive ? "isinf" : negative ? "isneginf" : "isposinf", s.in(0)));
}

void gelu(NodeScript& s) {
  s.give(
      fmt::format("torch.gelu({}, approximate=\"{}\")", s.in(0), s.node.text("approximate", "none") == "tanh" ? "tanh" : "none"));
}
void hard_sigmoid(NodeScript& s) {
  s.give(fmt::format("torch.clamp(torch.add(torch.mul({}, {}), {}), 0.0, 1.0)", s.in(0), number(s, "alpha", 0.2),
                     number(s, "beta", 0.5)));
}
void leaky_relu(NodeScript& s) { s.give(fmt::format("torch.leaky_relu({}, {})", s.in(0), number(s, "alpha", 0.01))); }
void elu(NodeScript& s) { s.give(fmt::format("torch.elu({}, {})", s.in(0), number(s, "alpha", 1.0))); }
void celu(NodeScript& s) { s.give(fmt::format("torch.celu({}, {})", s.in(0), number(s, "alpha", 1.0))); }
void thresholded_relu(NodeScript& s) { s.give(fmt::format("torch.threshold({}, {}, 0.0)", s.in(0), number(s, "alpha", 1.0))); }
void selu(NodeScript& s) {
  const bool first = s.opset() < 6;
  s.give(fmt::format("torch.elu({}, {}, {})", s.in(0), number(s, "alpha", first ? 1.6732 : 1.67326319217681884765625),
                     number(s, "gamma", first ? 1.0507 : 1.05070102214813232421875)));
}
void swish(NodeScript& s) {
  if (s.node.number("alpha", 1.0) == 1.0) return s.give(fmt::format("torch.silu({})", s.in(0)));
  s.give(fmt::format("torch.mul({0}, torch.sigmoid(torch.mul({0}, {1})))", s.in(0), number(s, "alpha", 1.0)));
}
void swiglu(NodeScript& s) {
  s.give(
      fmt::format("torch.mul(torch.mul({0}, torch.sigmoid(torch.mul({0}, {2}))), {1})", s.in(0), s.in(1), number(s, "alpha", 1.0)));
}
void shrink(NodeScript& s) {
  if (!s.floating(0)) s.refuse("integers");
  const std::string bound = number(s, "lambd", 0.5), bias = number(s, "bias", 0.0);
  const std::string upper =
      s.let(fmt::format("torch.where(torch.gt({0}, {1}), torch.sub({0}, {2}), torch.zeros_like({0}))", s.in(0), bound, bias));
  s.give(fmt::format("torch.where(torch.lt({0}, -{1}), torch.add({0}, {2}), {3})", s.in(0), bound, bias, upper));
}

/// The upper limit wins where the limits cross.
void clip(NodeScript& s) {
  std::string x = s.in(0);
  if (s.opset() < 11) {
    if (s.node.has("min")) x = s.let(fmt::format("torch.clamp_min({}, {})", x, number(s, "min", 0)));
    if (s.node.has("max")) x = s.let(fmt::format("torch.clamp_max({}, {})", x, number(s, "max", 0)));
    return s.give(x);
  }
  const auto scalar = [&](std::size_t i) {  // limits are one number each, of any rank
    return s.rank(i) == 0 ? s.in(i) : fmt::format("torch.select(torch.flatten({}), 0, 0)", s.in(i));
  };
  const auto limit = [&](std::size_t i) -> std::string {
    const Tensor* known = s.constant(i);
    if (known && known->count() == 1 && is_floating(known->dtype)) return number_text(known->numbers()[0]);
    if (known && known->count() == 1 && (known->dtype == DType::i64 || known->dtype == DType::i32))
      return std::to_string(known->integers()[0]);
    return {};
  };
  if (s.has(1)) {
    const std::string low = limit(1);
    x = s.let(low.empty() ? fmt::format("torch.maximum({}, {})", x, scalar(1)) : fmt::format("torch.clamp_min({}, {})", x, low));
  }
  if (s.has(2)) {
    const std::string high = limit(2);
    x = s.let(high.empty() ? fmt::format("torch.minimum({}, {})", x, scalar(2)) : fmt::format("torch.clamp_max({}, {})", x, high));
  }
  s.give(x);
}

void cast(NodeScript& s) {
  const auto type = type_number(s.info_out(0).dtype);
  if (!type) s.refuse("a type that LibTorch does not compute with");
  s.give(fmt::format("{}.to({})", s.in(0), *type));
}

void dropout(NodeScript& s) {
  s.only(1);
  const bool old = s.opset() < 7 && s.node.integer("is_test", 0) == 0 && s.node.number("ratio", 0.5) != 0;
  if (old || (s.opset() >= 12 && s.has(2))) s.refuse("dropping at random");
  s.give(s.in(0));
}

const RegisterPhrase entries[] = {
    {{"Identity", "Sigmoid", "Tanh",       "Relu",       "Neg",       "Abs",         "Sqrt",      "Reciprocal",
      "Exp",      "Log",     "Erf",        "Sin",        "Cos",       "Tan",         "Asin",      "Acos",
      "Atan",     "Sinh",    "Cosh",       "Asinh",      "Acosh",     "Atanh",       "Floor",     "Ceil",
      "Round",    "Not",     "BitwiseNot", "IsNaN",      "Softplus",  "Softsign",    "HardSwish", "Mish",
      "Add",      "Sub",     "Mul",        "Equal",      "Less",      "LessOrEqual", "Greater",   "GreaterOrEqual",
      "And",      "Or",      "Xor",        "BitwiseAnd", "BitwiseOr", "BitwiseXor",  "PRelu"},
     write_plain},
    {{"Div"}, div},
    {{"Mod"}, mod},
    {{"Pow"}, pow},
    {{"Min"}, min},
    {{"Max"}, max},
    {{"Sum"}, sum},
    {{"Mean"}, mean},
    {{"Where"}, where},
    {{"Sign"}, sign},
    {{"IsInf"}, is_inf},
    {{"Gelu"}, gelu},
    {{"HardSigmoid"}, hard_sigmoid},
    {{"LeakyRelu"}, leaky_relu},
    {{"Elu"}, elu},
    {{"Celu"}, celu},
    {{"ThresholdedRelu"}, thresholded_relu},
    {{"Selu"}, selu},
    {{"Swish"}, swish},
    {{"SwiGLU"}, swiglu},
    {{"Shrink"}, shrink},
    {{"Clip"}, clip},
    {{"Cast", "CastLike"}, cast},
    {{"Dropout"}, dropout},
};

}  // namespace
}  // namespace espalier::torchscript
