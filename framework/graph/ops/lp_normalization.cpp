#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

std::vector<ValueInfo> infer_lp(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  view.axis("axis", -1, x.shape.size());
  const std::int64_t p = view.node.integer("p", 2);
  if (p != 1 && p != 2) view.fail("p is " + std::to_string(p) + ", 1 or 2 is needed");
  return {value(x.dtype, x.shape)};
}

void axes_lp(const NodeView& view, AxisMaps& maps) {
  link_all(view, maps, 0);
  maps.whole(AxisMaps::in(0, view.axis("axis", -1, view.in(0).shape.size())), false,
             view.node.op + " divides by the norm over this axis");
}

const RegisterOperator lp{{"LpNormalization", "", 1, infer_lp, axes_lp, nullptr, nullptr, true}};

}  // namespace
}  // namespace espalier
