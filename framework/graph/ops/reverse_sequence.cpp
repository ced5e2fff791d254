#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

struct Axes {
  std::size_t time, batch;
};

Axes axes_of(const NodeView& view) {
  const std::int64_t time = view.node.integer("time_axis", 0), batch = view.node.integer("batch_axis", 1);
  if (view.in(0).shape.size() < 2) view.fail("the input has shape " + text(view.in(0).shape) + ", two axes are needed");
  if (time < 0 || time > 1 || batch < 0 || batch > 1 || time == batch)
    view.fail("time_axis is " + std::to_string(time) + ", batch_axis " + std::to_string(batch) + ": one is 0, the other 1");
  return {static_cast<std::size_t>(time), static_cast<std::size_t>(batch)};
}

std::vector<ValueInfo> infer_reverse(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  check_rank(view, 1, 1);
  check_equal(view, view.in(1).shape[0], x.shape[axes_of(view).batch], "the batch and the number of lengths differ");
  return {value(x.dtype, x.shape)};
}

void axes_reverse(const NodeView& view, AxisMaps& maps) {
  const auto [time, batch] = axes_of(view);
  maps.same(AxisMaps::in(1, 0), AxisMaps::out(0, batch));
  for (std::size_t i = 0; i < view.in(0).shape.size(); ++i) {
    if (i != time) {
      maps.same(AxisMaps::in(0, i), AxisMaps::out(0, i));
      continue;
    }
    maps.pin(AxisMaps::in(0, i), "steps in time");
    maps.pin(AxisMaps::out(0, i), "steps in time");
  }
}

const RegisterOperator reverse{{"ReverseSequence", "", 10, infer_reverse, axes_reverse, nullptr, nullptr, true}};

}  // namespace
}  // namespace espalier
