/// Element-wise functions of two or more values, with NumPy's broadcasting.
#include <algorithm>

#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

bool positive(const Dim& d) {
  return d.constant() >= 0 && std::all_of(d.terms().begin(), d.terms().end(), [](const auto& t) { return t.second > 0; });
}

std::optional<bool> equal(const Dim& a, const Dim& b) {
  const Dim difference = a - b;
  if (difference.known()) return difference.constant() == 0;
  // Symbols are lengths: never negative.
  if ((positive(a) && b.known() && b.constant() < 0) || (positive(b) && a.known() && a.constant() < 0)) return false;
  return std::nullopt;
}

std::optional<Dim> quotient(const Dim& a, const Dim& b) {
  if (b == Dim(0)) return std::nullopt;
  if (a.known() && b.known()) {
    if (b.constant() == -1) return Dim(0) - a;
    return Dim(a.constant() / b.constant());  // ONNX truncates
  }
  return floor_div(a, b);
}

/// Of integers that are known: rounded down unless `towards_zero`.
std::optional<Dim> rest(const Dim& a, const Dim& b, bool towards_zero) {
  if (!a.known() || !b.known() || b == Dim(0)) return std::nullopt;
  if (b.constant() == -1) return 0;
  const std::int64_t left = a.constant() % b.constant();
  return !towards_zero && left != 0 && (left < 0) != (b.constant() < 0) ? left + b.constant() : left;
}

std::optional<Dim> combine(const Node& node, const Dim& a, const Dim& b) {
  const std::string& op = node.op;
  if (op == "Add") return a + b;
  if (op == "Sub") return a - b;
  if (op == "Mul") return a * b;
  if (op == "Div") return quotient(a, b);
  if (op == "Mod") return rest(a, b, node.integer("fmod", 0) != 0);
  if (op == "Equal") {
    auto e = equal(a, b);
    return e ? std::optional<Dim>(*e ? 1 : 0) : std::nullopt;
  }
  const Dim difference = a - b;
  if (!difference.known()) return std::nullopt;
  const std::int64_t d = difference.constant();
  if (op == "Min") return d <= 0 ? a : b;
  if (op == "Max") return d >= 0 ? a : b;
  if (op == "Less") return d < 0 ? 1 : 0;
  if (op == "LessOrEqual") return d <= 0 ? 1 : 0;
  if (op == "Greater") return d > 0 ? 1 : 0;
  if (op == "GreaterOrEqual") return d >= 0 ? 1 : 0;
  if (!a.known() || !b.known()) return std::nullopt;
  if (op == "And") return a.constant() != 0 && b.constant() != 0 ? 1 : 0;
  if (op == "Or") return a.constant() != 0 || b.constant() != 0 ? 1 : 0;
  if (op == "Xor") return (a.constant() != 0) != (b.constant() != 0) ? 1 : 0;
  return std::nullopt;
}

/// Element i of a content that broadcasts to `count` elements.
const Dim& at(const std::vector<Dim>& content, std::size_t i) { return content[content.size() == 1 ? 0 : i]; }

/// The number of elements of shape arithmetic, when the output is that small.
std::optional<std::size_t> content_size(const Shape& shape) {
  if (shape.size() > 1) return std::nullopt;
  const auto n = element_count(shape);
  return n && *n <= 256 ? std::optional<std::size_t>(static_cast<std::size_t>(*n)) : std::nullopt;
}

Content combined(const NodeView& view, const Shape& shape) {
  const auto n = content_size(shape);
  if (!n || !view.in(0).content) return std::nullopt;
  std::vector<Dim> out;
  for (std::size_t i = 0; i < *n; ++i) {
    Dim value = at(*view.in(0).content, i);
    for (std::size_t k = 1; k < view.node.inputs.size(); ++k) {
      if (!view.in(k).content) return std::nullopt;
      auto next = combine(view.node, value, at(*view.in(k).content, i));
      if (!next) return std::nullopt;
      value = *next;
    }
    out.push_back(value);
  }
  return out;
}

/// Two inputs, or `any` number of them.
std::vector<ValueInfo> broadcast_all(const NodeView& view, std::optional<DType> result, bool any = false) {
  const std::size_t n = view.node.inputs.size();
  if (any ? n < 1 : n != 2) view.fail("the node has " + std::to_string(n) + " inputs");
  Shape shape = view.in(0).shape;
  std::vector<std::size_t> all{0};
  for (std::size_t i = 1; i < n; ++i) {
    shape = broadcast(view, shape, view.in(i).shape);
    all.push_back(i);
  }
  if (view.node.op != "Pow") same_types(view, all);  // an exponent may be of another type
  Content content = combined(view, shape);
  return {value(result.value_or(view.in(0).dtype), std::move(shape), std::move(content))};
}

void check_all_numbers(const NodeView& view, NumberTypes numbers) {
  for (std::size_t i = 0; i < view.node.inputs.size(); ++i) check_numbers(view, i, numbers);
}

std::vector<ValueInfo> infer_arithmetic(const NodeView& view) {
  check_all_numbers(view, NumberTypes::all);
  return broadcast_all(view, std::nullopt);
}

std::vector<ValueInfo> infer_variadic(const NodeView& view) {
  check_all_numbers(view, view.node.op == "Mean" ? NumberTypes::floats : NumberTypes::all);
  return broadcast_all(view, std::nullopt, true);
}

std::vector<ValueInfo> infer_order(const NodeView& view) {
  check_all_numbers(view, NumberTypes::all);
  return broadcast_all(view, DType::boolean);
}

std::vector<ValueInfo> infer_equal(const NodeView& view) {
  for (std::size_t i = 0; i < view.node.inputs.size(); ++i)
    if (view.in(i).dtype != DType::boolean) check_numbers(view, i, NumberTypes::all);
  return broadcast_all(view, DType::boolean);
}

std::vector<ValueInfo> infer_logic(const NodeView& view) {
  for (std::size_t i = 0; i < view.node.inputs.size(); ++i)
    if (const DType type = view.in(i).dtype; type != DType::boolean && type != DType::undefined)
      view.fail("input " + std::to_string(i) + " is no boolean but " + std::string(to_string(type)));
  return broadcast_all(view, DType::boolean);
}

std::vector<ValueInfo> infer_bits(const NodeView& view) {
  check_all_numbers(view, NumberTypes::integers);
  return broadcast_all(view, std::nullopt);
}

std::vector<ValueInfo> infer_shift(const NodeView& view) {
  const std::string direction = view.node.text("direction", "");
  if (direction != "LEFT" && direction != "RIGHT") view.fail("direction is '" + direction + "'");
  for (const DType type : {DType::i8, DType::i16, DType::i32, DType::i64})
    if (view.in(0).dtype == type) view.refuse("integers with a sign are not shifted: " + std::string(to_string(type)));
  return infer_bits(view);
}

/// Floating values were left to fmod = 1 before opset 28.
std::vector<ValueInfo> infer_mod(const NodeView& view) {
  const std::int64_t fmod = view.node.integer("fmod", 0);
  if (fmod != 0 && fmod != 1) view.fail("fmod is " + std::to_string(fmod));
  if (fmod == 0 && is_floating(view.in(0).dtype) && view.graph.opset() < 28) view.fail("fmod is 0, and the values are floating");
  return infer_arithmetic(view);
}

/// The slope broadcasts to the data, not the other way round.
std::vector<ValueInfo> infer_prelu(const NodeView& view) {
  auto out = infer_arithmetic(view);
  const Shape& x = view.in(0).shape;
  if (out[0].shape.size() != x.size()) view.fail("slope " + text(view.in(1).shape) + " does not broadcast to " + text(x));
  for (std::size_t i = 0; i < x.size(); ++i)
    check_equal(view, out[0].shape[i], x[i], "axis " + std::to_string(i) + " under the slope");
  return {value(view.in(0).dtype, x)};
}

std::vector<ValueInfo> infer_swiglu(const NodeView& view) {
  check_all_numbers(view, NumberTypes::floats);
  same_types(view, {0, 1});
  const Shape &gate = view.in(0).shape, &x = view.in(1).shape;
  if (gate.size() != x.size()) view.fail("inputs of shapes " + text(gate) + " and " + text(x));
  for (std::size_t i = 0; i < x.size(); ++i) check_equal(view, gate[i], x[i], "axis " + std::to_string(i) + " of the inputs");
  return {value(view.in(0).dtype, broadcast(view, gate, x))};
}

std::vector<ValueInfo> infer_where(const NodeView& view) {
  if (view.in(0).dtype != DType::boolean && view.in(0).dtype != DType::undefined) view.fail("the condition is no boolean");
  same_types(view, {1, 2});
  if (view.in(1).dtype == DType::string) view.refuse("a choice between strings");
  const Shape shape = broadcast(view, broadcast(view, view.in(0).shape, view.in(1).shape), view.in(2).shape);
  Content content;
  const auto n = content_size(shape);
  const auto condition = view.integers(0);
  if (n && condition && view.in(0).content && view.in(1).content && view.in(2).content) {
    content.emplace();
    for (std::size_t i = 0; i < *n; ++i)
      content->push_back(at(*view.in((*condition)[condition->size() == 1 ? 0 : i] != 0 ? 1 : 2).content, i));
  }
  return {value(view.in(1).dtype, shape, std::move(content))};
}

void axes_broadcast(const NodeView& view, AxisMaps& maps) {
  for (std::size_t i = 0; i < view.node.inputs.size(); ++i) link_broadcast(view, maps, i);
}

/// A masked divisor is zero, a masked exponent or base gives 0⁰: the cut is sound, the mask is not.
void axes_singular(const NodeView& view, AxisMaps& maps) {
  axes_broadcast(view, maps);
  const Shape& shape = view.in(1).shape;
  for (std::size_t i = 0; i < shape.size(); ++i)
    if (shape[i].known() && shape[i] != Dim(1))
      maps.whole(AxisMaps::in(1, i), false, view.node.op + " with a zeroed channel is not finite");
}

/// Nor is the mask where integers are divided by it: that is an error.
void axes_mod(const NodeView& view, AxisMaps& maps) {
  axes_broadcast(view, maps);
  const Shape& shape = view.in(1).shape;
  for (std::size_t i = 0; i < shape.size(); ++i)
    if (shape[i] != Dim(1)) maps.pin(AxisMaps::in(1, i), "a divisor of Mod");
}

const bool registered = [] {
  for (const char* name : {"Add", "Sub", "Mul"})
    RegisterOperator({name, "", 7, infer_arithmetic, axes_broadcast, nullptr, nullptr, true});
  RegisterOperator({"Div", "", 7, infer_arithmetic, axes_singular, nullptr, nullptr, true});
  RegisterOperator({"Pow", "", 7, infer_arithmetic, axes_singular, nullptr, nullptr, true, {1}});
  for (int since : {10, 28}) RegisterOperator({"Mod", "", since, infer_mod, axes_mod, nullptr, nullptr, true, {1}});
  for (const char* name : {"Min", "Max", "Sum", "Mean"})
    RegisterOperator({name, "", 1, infer_variadic, axes_broadcast, nullptr, nullptr, true});
  for (const char* name : {"Less", "Greater"})
    RegisterOperator({name, "", 7, infer_order, axes_broadcast, nullptr, nullptr, false});
  for (const char* name : {"LessOrEqual", "GreaterOrEqual"})
    RegisterOperator({name, "", 12, infer_order, axes_broadcast, nullptr, nullptr, false});
  RegisterOperator({"Equal", "", 7, infer_equal, axes_broadcast, nullptr, nullptr, false});
  for (const char* name : {"And", "Or", "Xor"})
    RegisterOperator({name, "", 7, infer_logic, axes_broadcast, nullptr, nullptr, false});
  for (const char* name : {"BitwiseAnd", "BitwiseOr", "BitwiseXor"})
    RegisterOperator({name, "", 18, infer_bits, axes_broadcast, nullptr, nullptr, false});
  RegisterOperator({"BitShift", "", 11, infer_shift, axes_broadcast, nullptr, nullptr, false});
  RegisterOperator({"Where", "", 9, infer_where, axes_broadcast, nullptr, nullptr, true, {0}});
  RegisterOperator({"PRelu", "", 7, infer_prelu, axes_broadcast, nullptr, nullptr, true});
  RegisterOperator({"SwiGLU", "", 28, infer_swiglu, axes_broadcast, nullptr, nullptr, true});
  return true;
}();

}  // namespace
}  // namespace espalier
