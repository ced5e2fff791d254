/// Positions of extremes: ArgMax, ArgMin, TopK.
#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

bool keeps(const NodeView& view) { return view.node.integer("keepdims", 1) != 0; }

std::vector<ValueInfo> infer_arg(const NodeView& view) {
  Shape out = view.in(0).shape;
  const std::size_t axis = view.axis("axis", 0, out.size());
  if (out[axis] == Dim(0)) view.fail("axis " + std::to_string(axis) + " of shape " + text(out) + " has no elements");
  if (keeps(view))
    out[axis] = 1;
  else
    out.erase(out.begin() + static_cast<std::ptrdiff_t>(axis));
  return {value(DType::i64, std::move(out))};
}

void axes_arg(const NodeView& view, AxisMaps& maps) {
  const std::size_t rank = view.in(0).shape.size(), axis = view.axis("axis", 0, rank);
  for (std::size_t i = 0; i < rank; ++i) {
    if (i == axis)
      maps.pin(AxisMaps::in(0, i), "positions along this axis are numbers");
    else
      maps.same(AxisMaps::in(0, i), AxisMaps::out(0, i > axis && !keeps(view) ? i - 1 : i));
  }
}

/// How many elements are taken: attribute `k` (before opset 10) or input 1.
std::optional<Dim> taken(const NodeView& view) {
  if (view.graph.opset() < 10) {
    if (!view.node.has("k")) view.fail("attribute k is missing");
    return Dim(view.node.integer("k", 0));
  }
  const ValueInfo& k = view.in(1);
  if (const auto n = element_count(k.shape); n && *n != 1) view.fail("k has shape " + text(k.shape) + ", one number is needed");
  if (k.content) return (*k.content)[0];
  return std::nullopt;
}

std::vector<ValueInfo> infer_topk(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  const std::size_t axis = view.axis("axis", -1, x.shape.size());
  Shape out = x.shape;
  const auto k = taken(view);
  if (k && k->known() && (k->constant() < 0 || (out[axis].known() && k->constant() > out[axis].constant())))
    view.fail("k is " + k->text() + " for an axis of length " + out[axis].text());
  out[axis] = k.value_or(opaque(view, 0, axis));
  return {value(x.dtype, out), value(DType::i64, out)};
}

void axes_topk(const NodeView& view, AxisMaps& maps) {
  const std::size_t rank = view.in(0).shape.size(), axis = view.axis("axis", -1, rank);
  pin_input(view, maps, 1, "a number of elements");
  maps.pin(AxisMaps::in(0, axis), "the largest along this axis are picked");
  for (std::size_t slot = 0; slot < view.node.outputs.size(); ++slot) {
    if (view.node.outputs[slot].empty()) continue;
    maps.pin(AxisMaps::out(slot, axis), "the largest along this axis are picked");
    for (std::size_t i = 0; i < rank; ++i)
      if (i != axis) maps.same(AxisMaps::in(0, i), AxisMaps::out(slot, i));
  }
}

const bool registered = [] {
  for (const char* name : {"ArgMax", "ArgMin"}) RegisterOperator({name, "", 1, infer_arg, axes_arg, nullptr, nullptr, false});
  for (int since : {1, 10}) RegisterOperator({"TopK", "", since, infer_topk, axes_topk, nullptr, nullptr, true});
  return true;
}();

}  // namespace
}  // namespace espalier
