#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

std::vector<ValueInfo> infer_softmax(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  const bool flattens = view.graph.opset() < 13;
  if (!x.shape.empty()) view.axis("axis", flattens ? 1 : -1, flattens && x.shape.size() == 1 ? 2 : x.shape.size());
  return {value(x.dtype, x.shape)};
}

/// From opset 13 one axis; before, all axes from `axis` (default 1) on together.
void axes_softmax(const NodeView& view, AxisMaps& maps) {
  const std::size_t rank = view.in(0).shape.size();
  if (rank == 0) return;
  const bool flattens = view.graph.opset() < 13;
  const std::size_t first = view.axis("axis", flattens ? 1 : -1, flattens && rank == 1 ? 2 : rank);
  const std::size_t end = flattens ? rank : first + 1;
  link_all(view, maps, 0);
  for (std::size_t i = first; i < end; ++i)
    maps.whole(AxisMaps::in(0, i), false, view.node.op + " divides by the sum over this axis");
}

const bool registered = [] {
  for (const char* name : {"Softmax", "LogSoftmax"})
    for (int since : {1, 13}) RegisterOperator({name, "", since, infer_softmax, axes_softmax, nullptr, nullptr, true});
  return true;
}();

}  // namespace
}  // namespace espalier
