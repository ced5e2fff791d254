/// Element-wise functions of one value.
#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

/// Integers keep flowing through the few functions that shape arithmetic uses.
Content negated(const ValueInfo& x) {
  if (!x.content) return std::nullopt;
  std::vector<Dim> out;
  for (const Dim& d : *x.content) out.push_back(Dim(0) - d);
  return out;
}

std::vector<ValueInfo> infer_function(const NodeView& view, NumberTypes numbers) {
  const ValueInfo& x = view.in(0);
  check_numbers(view, 0, numbers);
  return {value(x.dtype, x.shape, view.node.op == "Neg" ? negated(x) : std::nullopt)};
}

std::vector<ValueInfo> infer_floats(const NodeView& view) { return infer_function(view, NumberTypes::floats); }
std::vector<ValueInfo> infer_integers(const NodeView& view) { return infer_function(view, NumberTypes::integers); }
std::vector<ValueInfo> infer_numbers(const NodeView& view) { return infer_function(view, NumberTypes::all); }

std::vector<ValueInfo> infer_identity(const NodeView& view) { return {view.in(0)}; }

std::vector<ValueInfo> infer_not(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  if (x.dtype != DType::boolean) view.fail("the input is no boolean but " + std::string(to_string(x.dtype)));
  Content content;
  if (auto known = view.integers(0); known && x.content) {
    content.emplace();
    for (auto v : *known) content->push_back(v == 0 ? 1 : 0);
  }
  return {value(DType::boolean, x.shape, std::move(content))};
}

/// IsNaN and IsInf.
std::vector<ValueInfo> infer_question(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  if (x.dtype != DType::undefined && !is_floating(x.dtype))
    view.fail("the input is no floating value but " + std::string(to_string(x.dtype)));
  return {value(DType::boolean, x.shape)};
}

std::vector<ValueInfo> infer_clip(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  check_numbers(view, 0, NumberTypes::all);
  for (std::size_t i = 1; i < 3; ++i) {
    if (!view.has(i)) continue;
    const auto count = element_count(view.in(i).shape);
    if (count && *count != 1) view.fail("a bound has shape " + text(view.in(i).shape) + ", one element is needed");
  }
  same_types(view, {0, 1, 2});
  return {value(x.dtype, x.shape)};
}

/// Integers of 64 bits would be compared with the attributes in f64.
std::vector<ValueInfo> infer_shrink(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  if (x.dtype == DType::i64 || x.dtype == DType::u64) view.refuse("input 0 is of type " + std::string(to_string(x.dtype)));
  return infer_numbers(view);
}

void axes_unary(const NodeView& view, AxisMaps& maps) {
  link_all(view, maps, 0);
  for (std::size_t i = 1; i < view.node.inputs.size(); ++i) pin_input(view, maps, i, "a bound of " + view.node.op);
}

void axes_identity(const NodeView& view, AxisMaps& maps) {
  if (!view.in(0).sequence) return link_all(view, maps, 0);
  pin_input(view, maps, 0, "a sequence");
  pin_output(view, maps, 0, "a sequence");
}

/// 1/0 and log 0: a channel masked to zero is not finite, though cutting it is sound.
void axes_singular(const NodeView& view, AxisMaps& maps) {
  axes_unary(view, maps);
  const Shape& shape = view.in(0).shape;
  for (std::size_t i = 0; i < shape.size(); ++i)
    if (shape[i].known() && shape[i] != Dim(1))
      maps.whole(AxisMaps::in(0, i), false, view.node.op + " of a zeroed channel is not finite");
}

/// Shrink and Binarizer: a threshold below zero lifts zero.
void axes_threshold(const NodeView& view, AxisMaps& maps) {
  const bool shrinks = view.node.op == "Shrink";
  if (view.node.number(shrinks ? "lambd" : "threshold", shrinks ? 0.5 : 0.0) >= 0) return axes_unary(view, maps);
  pin_input(view, maps, 0, "a negative threshold of " + view.node.op);
  pin_output(view, maps, 0, "a negative threshold of " + view.node.op);
}

const bool registered = [] {
  struct Row {
    const char* name;
    int since;
    bool differentiable;
  };
  // Before opset 6 these had an attribute more, which said what may be overwritten.
  for (const Row& row : std::initializer_list<Row>{
           {"Sigmoid", 1, true},    {"Tanh", 1, true},        {"Sqrt", 1, true},
           {"Exp", 1, true},        {"Erf", 9, true},         {"Gelu", 20, true},
           {"HardSwish", 14, true}, {"Elu", 1, true},         {"Celu", 12, true},
           {"Selu", 1, true},       {"HardSigmoid", 1, true}, {"LeakyRelu", 1, true},
           {"Mish", 18, true},      {"Swish", 24, true},      {"ThresholdedRelu", 10, true},
           {"Softplus", 1, true},   {"Softsign", 1, true},    {"Sin", 7, true},
           {"Cos", 7, true},        {"Tan", 7, true},         {"Asin", 7, true},
           {"Acos", 7, true},       {"Atan", 7, true},        {"Sinh", 9, true},
           {"Cosh", 9, true},       {"Asinh", 9, true},       {"Atanh", 9, true},
           {"Floor", 1, false},     {"Ceil", 1, false},       {"Round", 11, false},
       })
    RegisterOperator({row.name, "", row.since, infer_floats, axes_unary, nullptr, nullptr, row.differentiable});
  // Acosh of a zeroed channel is not a number: its axes stay as they are.
  RegisterOperator({"Acosh", "", 9, infer_floats, nullptr, nullptr, nullptr, true});
  for (const char* name : {"Reciprocal", "Log"})
    RegisterOperator({name, "", 1, infer_floats, axes_singular, nullptr, nullptr, true});
  for (const char* name : {"Relu", "Neg", "Abs"})
    RegisterOperator({name, "", 1, infer_numbers, axes_unary, nullptr, nullptr, true});
  RegisterOperator({"Sign", "", 9, infer_numbers, axes_unary, nullptr, nullptr, false});
  RegisterOperator({"Shrink", "", 9, infer_shrink, axes_threshold, nullptr, nullptr, true});
  RegisterOperator({"Binarizer", "ai.onnx.ml", 1, infer_shrink, axes_threshold, nullptr, nullptr, false});
  RegisterOperator({"Identity", "", 1, infer_identity, axes_identity, nullptr, nullptr, true, {}, true});
  RegisterOperator({"Not", "", 1, infer_not, axes_unary, nullptr, nullptr, false});
  RegisterOperator({"BitwiseNot", "", 18, infer_integers, axes_unary, nullptr, nullptr, false});
  RegisterOperator({"IsNaN", "", 9, infer_question, axes_unary, nullptr, nullptr, false});
  RegisterOperator({"IsInf", "", 10, infer_question, axes_unary, nullptr, nullptr, false});
  RegisterOperator({"Clip", "", 1, infer_clip, axes_unary, nullptr, nullptr, true});           // bounds are attributes
  RegisterOperator({"Clip", "", 11, infer_clip, axes_unary, nullptr, nullptr, true, {1, 2}});  // bounds are inputs
  return true;
}();

}  // namespace
}  // namespace espalier
