/// Hardmax: 1 at the first of the largest elements, 0 elsewhere. From opset 13 along one axis; before, all axes from `axis` on are
/// one.
#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

bool flattens(const NodeView& view) { return view.graph.opset() < 13; }

std::size_t first_axis(const NodeView& view) {
  const std::size_t rank = view.in(0).shape.size();
  return view.axis("axis", flattens(view) ? 1 : -1, flattens(view) && rank == 1 ? 2 : rank);
}

std::vector<ValueInfo> infer_hardmax(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  check_numbers(view, 0, NumberTypes::floats);
  first_axis(view);
  return {value(x.dtype, x.shape)};
}

void axes_hardmax(const NodeView& view, AxisMaps& maps) {
  const std::size_t first = first_axis(view), end = flattens(view) ? view.in(0).shape.size() : first + 1;
  link_all(view, maps, 0);
  for (std::size_t i = first; i < end; ++i) maps.whole(AxisMaps::in(0, i), false, "Hardmax looks for the largest along this axis");
}

const bool registered = [] {
  for (int since : {1, 13}) RegisterOperator({"Hardmax", "", since, infer_hardmax, axes_hardmax, nullptr, nullptr, false});
  return true;
}();

}  // namespace
}  // namespace espalier
