#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

/// The axis that is made, counted in the output.
std::size_t made(const NodeView& view) { return view.axis("axis", -1, view.in(0).shape.size() + 1); }

std::vector<ValueInfo> infer_one_hot(const NodeView& view) {
  const ValueInfo &indices = view.in(0), &depth = view.in(1), &values = view.in(2);
  if (const auto n = element_count(depth.shape); n && *n != 1)
    view.fail("depth has shape " + text(depth.shape) + ", one number is needed");
  check_rank(view, 2, 1);
  check_equal(view, values.shape[0], 2, "values are off and on");
  Shape out = indices.shape;
  const std::size_t axis = made(view);
  Dim length = opaque(view, 0, axis);
  if (depth.content) length = (*depth.content)[0];
  if (length.known() && length.constant() < 1) view.fail("depth is " + length.text());
  out.insert(out.begin() + static_cast<std::ptrdiff_t>(axis), length);
  return {value(values.dtype, std::move(out))};
}

void axes_one_hot(const NodeView& view, AxisMaps& maps) {
  const std::size_t axis = made(view);
  pin_input(view, maps, 1, "a depth");
  pin_input(view, maps, 2, "what stands for off and on");
  maps.pin(AxisMaps::out(0, axis), "an index's digit");
  for (std::size_t i = 0; i < view.in(0).shape.size(); ++i) maps.same(AxisMaps::in(0, i), AxisMaps::out(0, i < axis ? i : i + 1));
}

const RegisterOperator one_hot{{"OneHot", "", 9, infer_one_hot, axes_one_hot, nullptr, nullptr, false, {1, 2}}};

}  // namespace
}  // namespace espalier
