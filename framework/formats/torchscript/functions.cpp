/// Functions of one value, element by element.
#include <limits>

#include "formats/torchscript/lowering.h"

namespace espalier::torchscript {
namespace {

/// Integers become f32 where the function gives fractions.
std::string floated(const Call& c) {
  const std::string x = c.inputs().at(0).kind == Item::Kind::tensor ? c.inputs()[0].name : c.operand(c.inputs()[0], DType::f32);
  return is_floating(c.dtype(x)) ? x : c.cast(x, DType::f32);
}

struct Row {
  const char* kind;
  const char* op;
};
/// Of the same meaning in both.
constexpr Row kFloats[] = {{"aten::exp", "Exp"},
                           {"aten::log", "Log"},
                           {"aten::erf", "Erf"},
                           {"aten::tanh", "Tanh"},
                           {"aten::sigmoid", "Sigmoid"},
                           {"aten::sqrt", "Sqrt"},
                           {"aten::sin", "Sin"},
                           {"aten::cos", "Cos"},
                           {"aten::tan", "Tan"},
                           {"aten::atan", "Atan"},
                           {"aten::mish", "Mish"},
                           {"aten::hardswish", "HardSwish"},
                           {"aten::reciprocal", "Reciprocal"},
                           {"aten::asin", "Asin"},
                           {"aten::acos", "Acos"},
                           {"aten::sinh", "Sinh"},
                           {"aten::cosh", "Cosh"}};
constexpr Row kNumbers[] = {{"aten::relu", "Relu"}, {"aten::abs", "Abs"}, {"aten::neg", "Neg"}, {"aten::sign", "Sign"}};
constexpr Row kRounding[] = {{"aten::floor", "Floor"}, {"aten::ceil", "Ceil"}, {"aten::round", "Round"}};

const char* op_of(const Call& c) {
  std::string kind = c.operation.kind;
  if (kind.ends_with('_')) kind.pop_back();
  for (const auto& [name, op] : kFloats)
    if (kind == name) return op;
  for (const auto& [name, op] : kNumbers)
    if (kind == name) return op;
  for (const auto& [name, op] : kRounding)
    if (kind == name) return op;
  return "";
}

Item of_floats(Call& c) { return Item::of_tensor(c.add(op_of(c), {floated(c)})); }

Item of_numbers(Call& c) {
  const Item& x = c.inputs().at(0);
  if (x.kind == Item::Kind::integer && c.operation.kind == "aten::neg") {
    if (x.constant()) return Item::of_integer(-x.integer);
    return Item::of_computed(c.add("Neg", {x.name}));
  }
  return Item::of_tensor(c.add(op_of(c), {c.tensor("self")}));
}

Item rounded(Call& c) {
  const std::string x = c.tensor("self");
  if (c.given("decimals") && c.integer("decimals") != 0) c.refuse("rounding to decimals");
  return is_floating(c.dtype(x)) ? Item::of_tensor(c.add(op_of(c), {x})) : Item::of_tensor(x);
}

Item gelu(Call& c) {
  return Item::of_tensor(
      c.add("Gelu", {c.tensor("self")}, {{"approximate", c.given("approximate") ? c.text("approximate") : std::string("none")}}));
}

Item silu(Call& c) {
  const std::string x = c.tensor("self");
  return Item::of_tensor(c.add("Mul", {x, c.add("Sigmoid", {x})}));
}

Item clamp(Call& c) {
  const std::string x = c.tensor("self");
  const DType type = c.dtype(x);
  for (const char* name : {"min", "max"})
    if (!is_floating(type) && c.given(name) && c.item(name).kind == Item::Kind::number)
      c.refuse("integers between bounds that are none");
  const auto bound = [&](const char* name) { return c.given(name) ? c.operand(c.item(name), type) : std::string(); };
  std::string low = c.operation.kind.find("clamp_max") == std::string::npos ? bound("min") : "",
              high = c.operation.kind.find("clamp_min") == std::string::npos ? bound("max") : "";
  // Bounds with axes are no bounds of Clip's.
  if ((!low.empty() && c.rank(low) > 0) || (!high.empty() && c.rank(high) > 0)) {
    const std::string raised = low.empty() ? x : c.add("Max", {x, low});
    return Item::of_tensor(high.empty() ? raised : c.add("Min", {raised, high}));
  }
  std::vector<std::string> inputs{x, low};
  if (!high.empty()) inputs.push_back(high);
  return Item::of_tensor(c.add("Clip", inputs));
}

Item bounded(Call& c, double low, double high) {
  const std::string x = c.tensor("self");
  return Item::of_tensor(c.add("Clip", {x, c.scalar(low, c.dtype(x)), c.scalar(high, c.dtype(x))}));
}

Item softplus(Call& c) {
  if (c.number("beta") != 1) c.refuse("beta other than 1");
  return Item::of_tensor(c.add("Softplus", {c.tensor("self")}));
}

Item elu(Call& c) {
  if (c.number("scale") != 1 || c.number("input_scale") != 1) c.refuse("scales other than 1");
  return Item::of_tensor(c.add("Elu", {c.tensor("self")}, {{"alpha", c.number("alpha")}}));
}

/// One slope, or one for each channel: those stand in axis 1.
Item prelu(Call& c) {
  const std::string x = c.tensor("self");
  std::string slope = c.tensor("weight");
  const std::size_t axes = c.rank(x);
  if (axes > 2 && c.shape(slope) != Shape{1}) {
    Integers added;
    for (std::size_t i = 2; i < axes; ++i) added.push_back(static_cast<std::int64_t>(i) - 1);
    slope = c.add("Unsqueeze", {slope, c.list(added)});
  }
  return Item::of_tensor(c.add("PRelu", {x, slope}));
}

Item glu(Call& c) {
  const std::string x = c.tensor("self");
  const auto axis = static_cast<std::int64_t>(c.axis("dim", c.rank(x)));
  const auto halves = c.add_many("Split", {x}, {{"axis", axis}, {"num_outputs", std::int64_t{2}}}, 2);
  return Item::of_tensor(c.add("Mul", {halves[0], c.add("Sigmoid", {halves[1]})}));
}

Item log_sigmoid(Call& c) { return Item::of_tensor(c.add("Neg", {c.add("Softplus", {c.add("Neg", {c.tensor("self")})})})); }

Item plus_one(Call& c, const char* op, double offset, bool before) {
  const std::string x = floated(c);
  const std::string one = c.scalar(offset, c.dtype(x));
  return Item::of_tensor(before ? c.add(op, {c.add("Add", {x, one})}) : c.add("Add", {c.add(op, {x}), one}));
}

Item logical_not(Call& c) {
  const Item& x = c.inputs().at(0);
  if (x.kind == Item::Kind::boolean) return Item::of_flag(x.integer == 0);
  if (c.operation.kind == "aten::bitwise_not" && c.dtype(x.name) != DType::boolean)
    return Item::of_tensor(c.add("BitwiseNot", {x.name}));
  return Item::of_tensor(c.add("Not", {c.cast(x.name, DType::boolean)}));
}

Item cast_to(Call& c, DType type) { return Item::of_tensor(c.cast(c.tensor("self"), type)); }

/// `to` in its many forms: a type, another tensor's type, or a device alone.
Item to(Call& c) {
  const std::string x = c.tensor("self");
  if (c.given("dtype")) return Item::of_tensor(c.cast(x, *c.type("dtype")));
  if (c.given("other")) return Item::of_tensor(c.cast(x, c.dtype(c.tensor("other"))));
  return Item::of_tensor(x);
}

Item same(Call& c) { return c.inputs().at(0); }

Item dropout(Call& c) {
  if (c.flag_or("train", false))
    c.refuse("the model was saved in training mode", "call model.eval() before it is traced or scripted");
  return c.inputs().at(0);
}

const bool registered = [] {
  for (const auto& [kind, op] : kFloats) RegisterRule({kind}, of_floats);
  for (const auto& [kind, op] : kNumbers) RegisterRule({kind}, of_numbers);
  for (const auto& [kind, op] : kRounding) RegisterRule({kind}, rounded);
  return true;
}();

const RegisterRule rules[] = {
    {{"aten::gelu"}, gelu},
    {{"aten::silu"}, silu},
    {{"aten::clamp", "aten::clamp_min", "aten::clamp_max", "aten::clip"}, clamp},
    {{"aten::hardtanh"}, [](Call& c) { return bounded(c, c.number("min_val"), c.number("max_val")); }},
    {{"aten::relu6"}, [](Call& c) { return bounded(c, 0, 6); }},
    {{"aten::softplus"}, softplus},
    {{"aten::softsign"}, [](Call& c) { return Item::of_tensor(c.add("Softsign", {c.tensor("self")})); }},
    {{"aten::hardsigmoid"},
     [](Call& c) {
       return Item::of_tensor(c.add("HardSigmoid", {c.tensor("self")}, {{"alpha", 1.0 / 6}, {"beta", 0.5}}));
     }},
    {{"aten::leaky_relu"},
     [](Call& c) {
       return Item::of_tensor(c.add("LeakyRelu", {c.tensor("self")}, {{"alpha", c.number("negative_slope")}}));
     }},
    {{"aten::elu"}, elu},
    {{"aten::selu"}, [](Call& c) { return Item::of_tensor(c.add("Selu", {c.tensor("self")})); }},
    {{"aten::celu"},
     [](Call& c) {
       return Item::of_tensor(c.add("Celu", {c.tensor("self")}, {{"alpha", c.number("alpha")}}));
     }},
    {{"aten::prelu"}, prelu},
    {{"aten::glu"}, glu},
    {{"aten::log_sigmoid"}, log_sigmoid},
    {{"aten::log1p"}, [](Call& c) { return plus_one(c, "Log", 1, true); }},
    {{"aten::expm1"}, [](Call& c) { return plus_one(c, "Exp", -1, false); }},
    {{"aten::rsqrt"}, [](Call& c) { return Item::of_tensor(c.add("Reciprocal", {c.add("Sqrt", {floated(c)})})); }},
    {{"aten::square"},
     [](Call& c) {
       const std::string x = c.tensor("self");
       return Item::of_tensor(c.add("Mul", {x, x}));
     }},
    {{"aten::logical_not", "aten::bitwise_not", "aten::__not__"}, logical_not},
    {{"aten::isnan"}, [](Call& c) { return Item::of_tensor(c.add("IsNaN", {c.tensor("self")})); }},
    {{"aten::isinf"}, [](Call& c) { return Item::of_tensor(c.add("IsInf", {c.tensor("self")})); }},
    {{"aten::to"}, to},
    {{"aten::type_as"}, to},
    {{"aten::float"}, [](Call& c) { return cast_to(c, DType::f32); }},
    {{"aten::long"}, [](Call& c) { return cast_to(c, DType::i64); }},
    {{"aten::bool"}, [](Call& c) { return cast_to(c, DType::boolean); }},
    {{"aten::contiguous", "aten::clone", "aten::detach", "aten::alias", "aten::cpu", "aten::lift_fresh", "aten::lift_fresh_copy"},
     same},
    {{"aten::dropout", "aten::feature_dropout", "aten::alpha_dropout", "aten::feature_alpha_dropout"}, dropout},
};

}  // namespace
}  // namespace espalier::torchscript
