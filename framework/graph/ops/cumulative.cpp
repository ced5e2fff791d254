/// Running sums and products: CumSum, CumProd.
#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

/// Nothing where only running tells.
std::optional<std::size_t> axis_of(const NodeView& view) {
  const ValueInfo& axis = view.in(1);
  if (const auto n = element_count(axis.shape); n && *n != 1)
    view.fail("the axis has shape " + text(axis.shape) + ", one number is needed");
  const auto known = view.integers(1);
  if (!known) return std::nullopt;
  return normalized(view, *known, view.in(0).shape.size()).at(0);
}

std::vector<ValueInfo> infer_cumulative(const NodeView& view) {
  if (view.in(0).shape.empty()) view.fail("a scalar has no axis");
  axis_of(view);
  return {value(view.in(0).dtype, view.in(0).shape)};
}

void axes_cumulative(const NodeView& view, AxisMaps& maps) {
  const auto axis = axis_of(view);
  pin_input(view, maps, 1, "an axis");
  for (std::size_t i = 0; i < view.in(0).shape.size(); ++i) {
    if (axis && i != *axis) {
      maps.same(AxisMaps::in(0, i), AxisMaps::out(0, i));
      continue;
    }
    maps.pin(AxisMaps::in(0, i), "elements are added up along this axis");
    maps.pin(AxisMaps::out(0, i), "elements are added up along this axis");
  }
}

const RegisterOperator sum{{"CumSum", "", 11, infer_cumulative, axes_cumulative, nullptr, nullptr, true}};
const RegisterOperator product{{"CumProd", "", 26, infer_cumulative, axes_cumulative, nullptr, nullptr, true}};

}  // namespace
}  // namespace espalier
