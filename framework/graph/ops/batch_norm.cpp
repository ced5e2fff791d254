#include "graph/ops/rules.h"
#include "sdk/error.h"

namespace espalier {
namespace {

using namespace ops;

/// The inference form: y = (x - mean) / √(var + ε) · scale + bias, per channel (axis 1).
std::vector<ValueInfo> infer_batch_norm(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  if (x.shape.size() < 2) view.fail("input 0 of shape " + text(x.shape) + " has no channels");
  bool training = view.node.integer("training_mode", 0) != 0;
  for (std::size_t i = 1; i < view.node.outputs.size(); ++i) training = training || !view.node.outputs[i].empty();
  if (training)
    throw_unsupported("BatchNormalization in its training form is refused", "node '" + view.node.name + "' (BatchNormalization)",
                      "export the model in evaluation mode");
  for (std::size_t slot = 1; slot < 5; ++slot) {
    check_rank(view, slot, 1);
    check_equal(view, view.in(slot).shape[0], x.shape[1], "input " + std::to_string(slot) + " against the channels");
  }
  std::vector<ValueInfo> out{value(x.dtype, x.shape)};
  out.resize(view.node.outputs.size() > 1 ? view.node.outputs.size() : 1, value(x.dtype, {x.shape[1]}));
  return out;
}

void axes_batch_norm(const NodeView& view, AxisMaps& maps) {
  link_all(view, maps, 0);
  for (std::size_t slot = 1; slot < 5; ++slot) maps.same(AxisMaps::in(slot, 0), AxisMaps::out(0, 1));
}

const bool registered = [] {
  for (int since : {7, 9, 14, 15})
    RegisterOperator({"BatchNormalization", "", since, infer_batch_norm, axes_batch_norm, nullptr, nullptr, true});
  return true;
}();

}  // namespace
}  // namespace espalier
