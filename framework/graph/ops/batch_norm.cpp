#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

/// From opset 14 on an attribute says so; before, the number of outputs did, and until opset 6 is_test said the contrary.
bool trains(const NodeView& view) {
  bool outputs = false;
  for (std::size_t i = 1; i < view.node.outputs.size(); ++i) outputs = outputs || !view.node.outputs[i].empty();
  if (view.graph.opset() >= 14) {
    const bool training = view.node.integer("training_mode", 0) != 0;
    if (outputs && !training) view.fail("there are running statistics to give out, but training_mode is 0");
    return training;
  }
  if (outputs || (view.graph.opset() < 7 && view.node.integer("is_test", 0) == 0))
    view.refuse("the training form of opset " + std::to_string(view.graph.opset()) + " is not supported");
  return false;
}

/// y = (x - mean) / √(var + ε) · scale + bias, per channel (axis 1). In training, mean and variance are those of the batch, and the
/// running ones are given out.
std::vector<ValueInfo> infer_batch_norm(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  if (x.shape.size() < 2) view.fail("input 0 of shape " + text(x.shape) + " has no channels");
  if (view.graph.opset() < 9 && view.node.integer("spatial", 1) == 0) view.refuse("spatial = 0 is not supported");
  trains(view);
  for (std::size_t slot = 1; slot < 5; ++slot) {
    check_rank(view, slot, 1);
    check_equal(view, view.in(slot).shape[0], x.shape[1], "input " + std::to_string(slot) + " against the channels");
  }
  std::vector<ValueInfo> out{value(x.dtype, x.shape)};
  for (std::size_t i = 1; i < view.node.outputs.size(); ++i) out.push_back(value(view.in(3).dtype, {x.shape[1]}));
  return out;
}

void axes_batch_norm(const NodeView& view, AxisMaps& maps) {
  link_all(view, maps, 0);
  for (std::size_t slot = 1; slot < 5; ++slot) maps.same(AxisMaps::in(slot, 0), AxisMaps::out(0, 1));
  if (!trains(view)) return;
  for (std::size_t slot = 1; slot < view.node.outputs.size(); ++slot)
    if (!view.node.outputs[slot].empty()) maps.same(AxisMaps::out(slot, 0), AxisMaps::out(0, 1));
  for (std::size_t i = 0; i < view.in(0).shape.size(); ++i)
    if (i != 1) maps.whole(AxisMaps::in(0, i), false, "BatchNormalization in training takes the mean over this axis");
}

const bool registered = [] {
  for (int since : {1, 6, 7, 9, 14, 15})
    RegisterOperator({"BatchNormalization", "", since, infer_batch_norm, axes_batch_norm, nullptr, nullptr, true, {3, 4}});
  return true;
}();

}  // namespace
}  // namespace espalier
