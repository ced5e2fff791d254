/// Element-wise functions of one value.
#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

/// Integers keep flowing through the few functions that shape arithmetic uses.
Content mapped(const NodeView& view, Dim (*one)(const Dim&)) {
  const ValueInfo& x = view.in(0);
  if (!x.content || !one) return std::nullopt;
  std::vector<Dim> out;
  for (const Dim& d : *x.content) out.push_back(one(d));
  return out;
}

Dim same_integer(const Dim& d) { return d; }
Dim negative(const Dim& d) { return Dim(0) - d; }

std::vector<ValueInfo> infer_unary(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  if (x.dtype == DType::string && view.node.op != "Identity") view.fail("strings have no " + view.node.op);
  Content content;
  if (view.node.op == "Identity") content = mapped(view, same_integer);
  if (view.node.op == "Neg") content = mapped(view, negative);
  return {value(x.dtype, x.shape, std::move(content))};
}

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

std::vector<ValueInfo> infer_cast(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  const std::int64_t to = view.node.integer("to", 0);
  if (to <= 0 || to > static_cast<std::int64_t>(DType::i4)) view.fail("cannot cast to element type " + std::to_string(to));
  const auto type = static_cast<DType>(to);
  Content content;
  if (type == DType::i64 || type == DType::i32) content = mapped(view, same_integer);
  if (type == DType::boolean && x.content) {
    if (auto known = view.integers(0)) {
      content.emplace();
      for (auto v : *known) content->push_back(v != 0 ? 1 : 0);
    }
  }
  return {value(type, x.shape, std::move(content))};
}

std::vector<ValueInfo> infer_clip(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  for (std::size_t i = 1; i < 3; ++i) {
    if (!view.has(i)) continue;
    const auto count = element_count(view.in(i).shape);
    if (count && *count != 1) view.fail("a bound has shape " + text(view.in(i).shape) + ", one element is needed");
  }
  same_types(view, {0, 1, 2});
  return {value(x.dtype, x.shape)};
}

void axes_unary(const NodeView& view, AxisMaps& maps) {
  link_all(view, maps, 0);
  for (std::size_t i = 1; i < view.node.inputs.size(); ++i) pin_input(view, maps, i, "a bound of " + view.node.op);
}

/// 1/0 and log 0: a channel masked to zero is not finite, though cutting it is sound.
void axes_singular(const NodeView& view, AxisMaps& maps) {
  axes_unary(view, maps);
  const Shape& shape = view.in(0).shape;
  for (std::size_t i = 0; i < shape.size(); ++i)
    if (shape[i].known() && shape[i] != Dim(1))
      maps.whole(AxisMaps::in(0, i), false, view.node.op + " of a zeroed channel is not finite");
}

const bool registered = [] {
  struct Row {
    const char* name;
    int since;
    bool differentiable;
  };
  for (const Row& row : std::initializer_list<Row>{
           {"Relu", 6, true},       {"Sigmoid", 6, true},   {"Tanh", 6, true},  {"Neg", 6, true},      {"Abs", 6, true},
           {"Sqrt", 6, true},       {"Exp", 6, true},       {"Erf", 9, true},   {"Gelu", 20, true},    {"HardSigmoid", 6, true},
           {"HardSwish", 14, true}, {"LeakyRelu", 6, true}, {"Elu", 6, true},   {"Softplus", 1, true}, {"Swish", 24, true},
           {"Identity", 1, true},   {"Floor", 6, false},    {"Ceil", 6, false}, {"Round", 11, false},  {"Sin", 7, true},
           {"Cos", 7, true},
       })
    RegisterOperator({row.name, "", row.since, infer_unary, axes_unary, nullptr, nullptr, row.differentiable});
  for (const char* name : {"Reciprocal", "Log"})
    RegisterOperator({name, "", 6, infer_unary, axes_singular, nullptr, nullptr, true});
  RegisterOperator({"Not", "", 1, infer_not, axes_unary, nullptr, nullptr, false});
  RegisterOperator({"Cast", "", 6, infer_cast, axes_unary, nullptr, nullptr, true});
  RegisterOperator({"Clip", "", 6, infer_clip, axes_unary, nullptr, nullptr, true});   // bounds are attributes
  RegisterOperator({"Clip", "", 11, infer_clip, axes_unary, nullptr, nullptr, true});  // bounds are inputs
  return true;
}();

}  // namespace
}  // namespace espalier
