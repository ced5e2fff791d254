#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

std::vector<ValueInfo> infer_det(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  const std::size_t rank = x.shape.size();
  if (rank < 2) view.fail("the input has shape " + text(x.shape) + ", square matrices are needed");
  check_equal(view, x.shape[rank - 2], x.shape[rank - 1], "the matrices are not square");
  return {value(x.dtype, Shape(x.shape.begin(), x.shape.end() - 2))};
}

void axes_det(const NodeView& view, AxisMaps& maps) {
  const std::size_t rank = view.in(0).shape.size();
  for (std::size_t i = 0; i < rank; ++i) {
    if (i + 2 < rank)
      maps.same(AxisMaps::in(0, i), AxisMaps::out(0, i));
    else
      maps.pin(AxisMaps::in(0, i), "an axis of a determinant");
  }
}

/// An elimination: a third of the cube.
double macs_det(const NodeView& view, const Bindings& bindings) {
  const Shape& x = view.in(0).shape;
  return elements(x, bindings) * static_cast<double>(evaluate(x.back(), bindings)) / 3;
}

const RegisterOperator det{{"Det", "", 11, infer_det, axes_det, macs_det, nullptr, true}};

}  // namespace
}  // namespace espalier
