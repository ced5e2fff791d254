/// Losses over classes: scores or log-probabilities [batch, classes, d…], labels [batch, d…], optional weights [classes] → the loss
/// like the labels, or its sum or mean; SoftmaxCrossEntropyLoss also gives the log-probabilities.
#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

bool reduces(const NodeView& view) {
  const std::string reduction = view.node.text("reduction", "mean");
  if (reduction != "none" && reduction != "sum" && reduction != "mean") view.fail("reduction is '" + reduction + "'");
  return reduction != "none";
}

std::vector<ValueInfo> infer_loss(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  if (x.shape.size() < 2) view.fail("input 0 has shape " + text(x.shape) + ", [batch, classes, …] is needed");
  check_rank(view, 1, x.shape.size() - 1);
  const Shape& labels = view.in(1).shape;
  for (std::size_t i = 0; i < labels.size(); ++i)
    check_equal(view, labels[i], x.shape[i == 0 ? 0 : i + 1], "axis " + std::to_string(i) + " of the labels");
  if (view.has(2)) {
    check_rank(view, 2, 1);
    check_equal(view, view.in(2).shape[0], x.shape[1], "weights against classes");
  }
  std::vector<ValueInfo> out{value(x.dtype, reduces(view) ? Shape{} : labels)};
  if (view.node.op == "SoftmaxCrossEntropyLoss") out.push_back(value(x.dtype, x.shape));
  return out;
}

/// Labels are numbers of classes: none of those can go.
void axes_loss(const NodeView& view, AxisMaps& maps) {
  const char *classes = "labels count the classes of a loss", *together = "a loss over everything";
  const bool reduced = reduces(view);
  maps.pin(AxisMaps::in(0, 1), classes);
  pin_input(view, maps, 2, classes);
  for (std::size_t i = 0; i < view.in(1).shape.size(); ++i) {
    const std::size_t axis = i == 0 ? 0 : i + 1;
    maps.same(AxisMaps::in(0, axis), AxisMaps::in(1, i));
    if (reduced)
      maps.pin(AxisMaps::in(0, axis), together);
    else
      maps.same(AxisMaps::in(0, axis), AxisMaps::out(0, i));
  }
  if (view.node.output(1).empty()) return;
  link_all(view, maps, 0, 1);
}

const bool registered = [] {
  for (const char* name : {"NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"})
    RegisterOperator({name, "", 12, infer_loss, axes_loss, nullptr, nullptr, true, {2}});
  return true;
}();

}  // namespace
}  // namespace espalier
