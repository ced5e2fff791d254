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

std::optional<Dim> combine(const std::string& op, const Dim& a, const Dim& b) {
  if (op == "Add") return a + b;
  if (op == "Sub") return a - b;
  if (op == "Mul") return a * b;
  if (op == "Div") return quotient(a, b);
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
      auto next = combine(view.node.op, value, at(*view.in(k).content, i));
      if (!next) return std::nullopt;
      value = *next;
    }
    out.push_back(value);
  }
  return out;
}

std::vector<ValueInfo> infer_with(const NodeView& view, std::optional<DType> result) {
  const bool variadic = view.node.op == "Min" || view.node.op == "Max";
  const std::size_t n = view.node.inputs.size();
  if (variadic ? n < 1 : n != 2) view.fail("the node has " + std::to_string(n) + " inputs");
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

std::vector<ValueInfo> infer_arithmetic(const NodeView& view) { return infer_with(view, std::nullopt); }
std::vector<ValueInfo> infer_comparison(const NodeView& view) { return infer_with(view, DType::boolean); }

std::vector<ValueInfo> infer_where(const NodeView& view) {
  if (view.in(0).dtype != DType::boolean && view.in(0).dtype != DType::undefined) view.fail("the condition is no boolean");
  same_types(view, {1, 2});
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

const bool registered = [] {
  for (const char* name : {"Add", "Sub", "Mul"})
    RegisterOperator({name, "", 7, infer_arithmetic, axes_broadcast, nullptr, nullptr, true});
  for (const char* name : {"Div", "Pow"}) RegisterOperator({name, "", 7, infer_arithmetic, axes_singular, nullptr, nullptr, true});
  for (const char* name : {"Min", "Max"}) RegisterOperator({name, "", 6, infer_arithmetic, axes_broadcast, nullptr, nullptr, true});
  for (const char* name : {"Equal", "Less", "Greater", "And", "Or"})
    RegisterOperator({name, "", 7, infer_comparison, axes_broadcast, nullptr, nullptr, false});
  for (const char* name : {"LessOrEqual", "GreaterOrEqual"})
    RegisterOperator({name, "", 12, infer_comparison, axes_broadcast, nullptr, nullptr, false});
  RegisterOperator({"Where", "", 9, infer_where, axes_broadcast, nullptr, nullptr, true});
  return true;
}();

}  // namespace
}  // namespace espalier
