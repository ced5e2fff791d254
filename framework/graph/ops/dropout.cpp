/// Dropout, which hands its input on: nothing here draws at random.
#include <algorithm>

#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

std::vector<ValueInfo> infer_dropout(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  check_numbers(view, 0, NumberTypes::floats);
  for (std::size_t i = 1; i < 3; ++i)
    if (const auto n = view.has(i) ? element_count(view.in(i).shape) : 1; n && *n != 1)
      view.fail("input " + std::to_string(i) + " is no one number");
  if (view.has(2) && view.in(2).dtype != DType::boolean && view.in(2).dtype != DType::undefined)
    view.fail("training_mode is no boolean");
  return {value(x.dtype, x.shape), value(view.graph.opset() < 10 ? x.dtype : DType::boolean, x.shape)};
}

bool is_read(const Graph& graph, const std::string& name) {
  if (name.empty()) return false;
  for (const Value& output : graph.outputs)
    if (output.name == name) return true;
  return std::any_of(graph.nodes.begin(), graph.nodes.end(), [&](const Node& node) {
    const auto inner = captures(node);
    return std::find(node.inputs.begin(), node.inputs.end(), name) != node.inputs.end() ||
           std::binary_search(inner.begin(), inner.end(), name);
  });
}

/// The mask is of ones also where channels are zero: who reads it would not see them go.
void axes_dropout(const NodeView& view, AxisMaps& maps) {
  link_all(view, maps, 0);
  if (!view.node.output(1).empty()) link_all(view, maps, 0, 1);
  if (is_read(view.graph, view.node.output(1))) pin_output(view, maps, 1, "the mask of a Dropout");
  pin_input(view, maps, 1, "the ratio of a Dropout");
  pin_input(view, maps, 2, "the mode of a Dropout");
}

const bool registered = [] {
  // Attributes is_test, then none, a mask of flags, and the ratio as an input.
  for (int since : {1, 7, 10, 12})
    RegisterOperator({"Dropout", "", since, infer_dropout, axes_dropout, nullptr, nullptr, true, {1}});
  return true;
}();

}  // namespace
}  // namespace espalier
