#include "graph/learnable.h"

#include <algorithm>
#include <set>

#include "graph/op.h"

namespace espalier {
namespace {

/// A floating constant at this input is no weight.
bool reads_constant(const Graph& graph, const Node& node, std::size_t input, const Tensor& tensor) {
  if (const Operator* op = find_operator(graph, node);
      op && std::find(op->settings.begin(), op->settings.end(), input) != op->settings.end())
    return true;
  static const std::set<std::string, std::less<>> elementwise = {"Add",   "Sub", "Mul", "Div",  "Min", "Max",
                                                                 "Where", "Pow", "Sum", "Mean", "Mod"};
  return tensor.count() == 1 && elementwise.contains(node.op);
}

}  // namespace

std::vector<std::string> learnable(const Graph& graph) {
  std::set<std::string> names;
  for (const Node& node : graph.nodes)
    for (std::size_t i = 0; i < node.inputs.size(); ++i)
      if (const Tensor* tensor = graph.initializer(node.inputs[i]);
          tensor && is_floating(tensor->dtype) && !reads_constant(graph, node, i, *tensor))
        names.insert(node.inputs[i]);
  return {names.begin(), names.end()};
}

}  // namespace espalier
