/// Normalisations over places, or over groups of channels: InstanceNormalization, GroupNormalization, MeanVarianceNormalization and
/// LRN, all of x [batch, C, spatial…].
#include <algorithm>

#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

void check_vector(const NodeView& view, std::size_t slot, const Dim& length) {
  check_rank(view, slot, 1);
  check_equal(view, view.in(slot).shape[0], length, "input " + std::to_string(slot));
}

std::vector<ValueInfo> infer_instance(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  if (x.shape.size() < 3) view.fail("input 0 of shape " + text(x.shape) + " has no spatial axis");
  for (std::size_t slot : {1u, 2u}) check_vector(view, slot, x.shape[1]);
  return {value(x.dtype, x.shape)};
}

void take_whole(const NodeView& view, AxisMaps& maps, std::size_t first) {
  for (std::size_t i = first; i < view.in(0).shape.size(); ++i)
    maps.whole(AxisMaps::in(0, i), false, view.node.op + " subtracts the mean over this axis");
}

void axes_instance(const NodeView& view, AxisMaps& maps) {
  link_all(view, maps, 0);
  for (std::size_t slot : {1u, 2u}) maps.same(AxisMaps::in(slot, 0), AxisMaps::out(0, 1));
  take_whole(view, maps, 2);
}

std::int64_t groups(const NodeView& view) {
  if (!view.node.has("num_groups")) view.fail("num_groups is missing");
  const std::int64_t count = view.node.integer("num_groups", 0);
  if (count < 1) view.fail("num_groups is " + std::to_string(count));
  return count;
}

/// Until opset 20 there was one scale for a group, not for a channel.
bool scales_groups(const NodeView& view) { return view.graph.opset() < 21; }

std::vector<ValueInfo> infer_group(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  if (x.shape.size() < 2) view.fail("input 0 of shape " + text(x.shape) + " has no channels");
  const std::int64_t count = groups(view);
  if (x.shape[1].known() && x.shape[1].value() % count != 0)
    view.fail(x.shape[1].text() + " channels do not divide into " + std::to_string(count) + " groups");
  for (std::size_t slot : {1u, 2u}) check_vector(view, slot, scales_groups(view) ? Dim(count) : x.shape[1]);
  return {value(x.dtype, x.shape)};
}

/// Groups go as a whole. A single one is like LayerNormalization: with channels less its mean is another.
void axes_group(const NodeView& view, AxisMaps& maps) {
  const Shape& x = view.in(0).shape;
  const std::int64_t count = groups(view);
  const auto channels = AxisMaps::in(0, 1), out = AxisMaps::out(0, 1);
  for (std::size_t i = 0; i < x.size(); ++i)
    if (i != 1) maps.same(AxisMaps::in(0, i), AxisMaps::out(0, i));
  take_whole(view, maps, 2);
  const bool known = x[1].known() && x[1].value() > 0;
  if (known && count > 1) {
    const std::int64_t width = x[1].value() / count;
    maps.blocks(channels, width, out, width);
    for (std::size_t slot : {1u, 2u}) maps.blocks(AxisMaps::in(slot, 0), scales_groups(view) ? 1 : width, out, width);
    return;
  }
  maps.same(channels, out);
  if (count == 1) {
    maps.whole(channels, false, "GroupNormalization subtracts the mean over this axis");
    if (scales_groups(view)) return;
  } else {
    maps.pin(channels, "groups of symbolic width");
  }
  for (std::size_t slot : {1u, 2u}) {
    if (count == 1)
      maps.same(AxisMaps::in(slot, 0), out);
    else
      maps.pin(AxisMaps::in(slot, 0), "groups of symbolic width");
  }
}

void adjust_group(Adjust& adjust) {
  const NodeView view{adjust.graph, adjust.node, adjust.before};
  const auto* kept = adjust.kept(adjust.node.input(0), 1);
  const std::int64_t count = groups(view);
  if (!kept || count == 1) return;
  const std::int64_t width = view.in(0).shape[1].value() / count;
  adjust.node.attributes["num_groups"] = static_cast<std::int64_t>(kept->size()) / std::max<std::int64_t>(width, 1);
}

Integers normalized_axes(const NodeView& view) { return view.node.integers("axes", {0, 2, 3}); }

std::vector<ValueInfo> infer_mean_variance(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  normalized(view, normalized_axes(view), x.shape.size());
  return {value(x.dtype, x.shape)};
}

void axes_mean_variance(const NodeView& view, AxisMaps& maps) {
  link_all(view, maps, 0);
  for (std::size_t i : normalized(view, normalized_axes(view), view.in(0).shape.size()))
    maps.whole(AxisMaps::in(0, i), false, "MeanVarianceNormalization subtracts the mean over this axis");
}

std::vector<ValueInfo> infer_lrn(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  if (x.shape.size() < 2) view.fail("input 0 of shape " + text(x.shape) + " has no channels");
  if (!view.node.has("size")) view.fail("size is missing");
  if (view.node.integer("size", 0) < 1) view.fail("size is " + std::to_string(view.node.integer("size", 0)));
  return {value(x.dtype, x.shape)};
}

void axes_lrn(const NodeView& view, AxisMaps& maps) {
  link_all(view, maps, 0);
  maps.pin(AxisMaps::in(0, 1), "LRN reads the neighbours of a channel");
}

const bool registered = [] {
  for (int since : {1, 6})
    RegisterOperator({"InstanceNormalization", "", since, infer_instance, axes_instance, nullptr, nullptr, true});
  for (int since : {18, 21})
    RegisterOperator({"GroupNormalization", "", since, infer_group, axes_group, nullptr, adjust_group, true});
  RegisterOperator({"MeanVarianceNormalization", "", 9, infer_mean_variance, axes_mean_variance, nullptr, nullptr, true});
  RegisterOperator({"LRN", "", 1, infer_lrn, axes_lrn, nullptr, nullptr, true});
  return true;
}();

}  // namespace
}  // namespace espalier
