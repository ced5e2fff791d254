/// DeformConv: a convolution that samples x [batch, C, spatial…] beside its grid. Inputs: x, weight [M, C/group, kernel…], offsets
/// [batch, offset_group · |kernel| · axes, spatial…], bias [M], mask [batch, offset_group · |kernel|, spatial…].
#include "graph/ops/convolved.h"

namespace espalier {
namespace {

using namespace ops;

/// Offsets or mask: as many values as `each` for every place of the kernel and group of offsets.
void check_places(const NodeView& view, std::size_t slot, const Integers& kernel, std::int64_t each, const Shape& out) {
  check_rank(view, slot, out.size());
  const Shape& shape = view.in(slot).shape;
  Dim places = Dim(view.node.integer("offset_group", 1)) * each;
  for (std::int64_t k : kernel) places = places * k;
  const std::string what = "input " + std::to_string(slot);
  check_equal(view, shape[0], out[0], what + " against the batch");
  check_equal(view, shape[1], places, what + " against the places of the kernel");
  for (std::size_t i = 2; i < out.size(); ++i) check_equal(view, shape[i], out[i], what + " against the output");
}

std::vector<ValueInfo> infer_deform_conv(const NodeView& view) {
  same_types(view, {0, 1, 2, 3, 4});
  const std::int64_t groups = view.node.integer("offset_group", 1);
  if (groups < 1) view.fail("offset_group is " + std::to_string(groups));
  Shape out = convolved(view, 1, 3);
  const Dim& channels = view.in(0).shape[1];
  if (channels.known() && channels.value() % groups != 0)
    view.fail(channels.text() + " channels do not divide into " + std::to_string(groups) + " groups of offsets");
  const Integers kernel = kernel_of(view, 1);
  check_places(view, 2, kernel, static_cast<std::int64_t>(kernel.size()), out);
  if (view.has(4)) check_places(view, 4, kernel, 1, out);
  return {value(view.in(0).dtype, std::move(out))};
}

void axes_deform_conv(const NodeView& view, AxisMaps& maps) {
  const std::int64_t group = view.node.integer("group", 1), offset_group = view.node.integer("offset_group", 1);
  const auto channels = AxisMaps::in(0, 1), filters = AxisMaps::in(1, 0), inner = AxisMaps::in(1, 1);
  maps.same(filters, AxisMaps::out(0, 1));
  if (view.has(3)) maps.same(AxisMaps::in(3, 0), filters);
  for (std::size_t slot : {0, 2, 4}) {
    if (!view.has(slot)) continue;
    maps.same(AxisMaps::in(slot, 0), AxisMaps::out(0, 0));
    for (std::size_t i = slot == 0 ? 2 : 1; i < view.in(slot).shape.size(); ++i)
      maps.pin(AxisMaps::in(slot, i), "places that a DeformConv samples");
  }
  for (std::size_t i = 2; i < view.in(0).shape.size(); ++i)
    for (auto port : {AxisMaps::in(1, i), AxisMaps::out(0, i)}) maps.pin(port, "spatial axis of a convolution");
  if (group == 1 && offset_group == 1) {
    maps.reduce(channels, inner);
    return;
  }
  for (auto port : {channels, inner}) maps.pin(port, "groups of channels in a DeformConv");
  if (group != 1) maps.pin(filters, "groups of filters in a DeformConv");
}

double macs_deform_conv(const NodeView& view, const Bindings& bindings) {
  const Shape& w = view.in(1).shape;
  return elements(view.out(0).shape, bindings) * elements(Shape(w.begin() + 1, w.end()), bindings);
}

const RegisterOperator deform_conv{{"DeformConv", "", 19, infer_deform_conv, axes_deform_conv, macs_deform_conv, nullptr, true}};

}  // namespace
}  // namespace espalier
