/// Normalisations over the last axes: RMSNormalization and LayerNormalization.
#include <cmath>

#include "graph/ops/floats.h"
#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

std::vector<ValueInfo> infer_norm(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  const std::size_t axis = view.axis("axis", -1, x.shape.size());
  for (std::size_t slot = 1; slot < 3; ++slot) {
    if (slot == 1 && !view.has(1)) view.fail("the gain is missing");
    if (!view.has(slot)) continue;
    const Shape& shape = view.in(slot).shape;
    if (shape.size() > x.shape.size() || broadcast(view, x.shape, shape).size() != x.shape.size())
      view.fail("input " + std::to_string(slot) + " of shape " + text(shape) + " does not broadcast to " + text(x.shape));
    for (std::size_t i = 0; i < shape.size(); ++i)
      if (shape[i] != Dim(1))
        check_equal(view, shape[i], x.shape[i + x.shape.size() - shape.size()], "input " + std::to_string(slot));
  }
  const auto given = view.node.integer("stash_type", static_cast<std::int64_t>(DType::f32));
  const auto stash = given > 0 && given <= static_cast<std::int64_t>(DType::bf16) ? static_cast<DType>(given) : DType::undefined;
  if (!is_floating(stash)) view.fail("stash_type is " + std::to_string(given));
  const bool layer = view.node.op == "LayerNormalization";
  std::vector<ValueInfo> out{value(layer ? x.dtype : view.in(1).dtype, x.shape)};
  if (layer) {  // mean and inverse deviation
    Shape kept = x.shape;
    for (std::size_t i = axis; i < kept.size(); ++i) kept[i] = 1;
    out.push_back(value(stash, kept));
    out.push_back(value(stash, kept));
  }
  return out;
}

void link_norm(const NodeView& view, AxisMaps& maps) {
  link_all(view, maps, 0);
  link_broadcast(view, maps, 1);
  if (view.has(2)) link_broadcast(view, maps, 2);
}

void axes_rms(const NodeView& view, AxisMaps& maps) {
  link_norm(view, maps);
  const bool rewritable = view.constant(1) && is_floating(view.in(1).dtype) && bits(view.in(1).dtype) >= 16;
  const Shape& x = view.in(0).shape;
  for (std::size_t i = view.axis("axis", -1, x.size()); i < x.size(); ++i)
    maps.whole(
        AxisMaps::in(0, i), rewritable && x[i].known(),
        rewritable ? "gain and epsilon of RMSNormalization are rescaled" : "the gain of this RMSNormalization is no constant");
}

void axes_layer_norm(const NodeView& view, AxisMaps& maps) {
  link_norm(view, maps);
  const Shape& x = view.in(0).shape;
  const std::size_t axis = view.axis("axis", -1, x.size());
  for (std::size_t i = axis; i < x.size(); ++i)
    maps.whole(AxisMaps::in(0, i), false, "LayerNormalization subtracts the mean over this axis");
  for (std::size_t slot = 1; slot < view.node.outputs.size(); ++slot)
    for (std::size_t i = 0; i < axis && !view.node.outputs[slot].empty(); ++i)
      maps.same(AxisMaps::in(0, i), AxisMaps::out(slot, i));
}

/// With n of N channels left (the others were zero) the mean of squares grows by N/n. gain·√(N/n) and epsilon·N/n undo that:
/// g·√(N/n)·x / √(Σx²/n + ε·N/n) = g·x / √(Σx²/N + ε).
void adjust_rms(Adjust& adjust) {
  const NodeView view{adjust.graph, adjust.node, adjust.before};
  const std::string x = adjust.node.input(0);
  const Shape& shape = view.in(0).shape;
  double growth = 1;
  for (std::size_t i = view.axis("axis", -1, shape.size()); i < shape.size(); ++i) {
    const auto* kept = adjust.kept(x, i);
    if (kept && kept->empty()) view.fail("no channel is left");
    if (kept) growth *= static_cast<double>(shape[i].value()) / static_cast<double>(kept->size());
  }
  if (growth == 1) return;
  const Tensor* gain = adjust.graph.initializer(adjust.node.input(1));
  if (!gain) view.fail("the gain is no constant");
  adjust.node.attributes["epsilon"] = adjust.node.number("epsilon", 1e-5) * growth;
  adjust.set_constant(1, scaled(*gain, std::sqrt(growth)));
}

const RegisterOperator rms{{"RMSNormalization", "", 23, infer_norm, axes_rms, nullptr, adjust_rms, true}};
const RegisterOperator layer{{"LayerNormalization", "", 17, infer_norm, axes_layer_norm, nullptr, nullptr, true}};

}  // namespace
}  // namespace espalier
