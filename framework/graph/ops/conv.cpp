/// Convolution: x [batch, C, spatial…], weight [M, C/group, kernel…], optional bias [M] → [batch, M, spatial…].
#include "graph/ops/convolved.h"

namespace espalier {
namespace ops {

Integers kernel_of(const NodeView& view, std::size_t weight) {
  const Shape& w = view.in(weight).shape;
  Integers kernel;
  for (std::size_t i = 2; i < w.size(); ++i) {
    if (!w[i].known()) view.fail("the kernel's shape " + text(w) + " is not known");
    kernel.push_back(w[i].value());
  }
  if (view.node.integers("kernel_shape", kernel) != kernel) view.fail("kernel_shape does not fit the weight of shape " + text(w));
  return kernel;
}

void check_convolution(const NodeView& view, std::size_t weight, std::size_t bias) {
  const Shape &x = view.in(0).shape, &w = view.in(weight).shape;
  if (x.size() < 3) view.fail("input 0 of shape " + text(x) + " has no spatial axis");
  check_rank(view, weight, x.size());
  const std::int64_t group = view.node.integer("group", 1);
  if (group < 1) view.fail("group is " + std::to_string(group));
  check_equal(view, x[1], w[1] * group, "channels against weight and group");
  if (w[0].known() && w[0].value() % group != 0)
    view.fail(w[0].text() + " filters do not divide into " + std::to_string(group) + " groups");
  if (!view.has(bias)) return;
  check_rank(view, bias, 1);
  check_equal(view, view.in(bias).shape[0], w[0], "bias against filters");
}

Shape convolved(const NodeView& view, std::size_t weight, std::size_t bias) {
  check_convolution(view, weight, bias);
  Shape out{view.in(0).shape[0], view.in(weight).shape[0]};
  for (const Dim& d : slide(view, windows(view, kernel_of(view, weight)))) out.push_back(d);
  return out;
}

}  // namespace ops

namespace {

using namespace ops;

std::vector<ValueInfo> infer_conv(const NodeView& view) {
  same_types(view, {0, 1, 2});
  return {value(view.in(0).dtype, convolved(view, 1, 2))};
}

bool depthwise(const NodeView& view) { return view.node.integer("group", 1) > 1 && view.in(1).shape[1] == Dim(1); }

void axes_conv(const NodeView& view, AxisMaps& maps) {
  const Shape &x = view.in(0).shape, &w = view.in(1).shape;
  const std::int64_t group = view.node.integer("group", 1);
  const auto channels = AxisMaps::in(0, 1), filters = AxisMaps::in(1, 0), inner = AxisMaps::in(1, 1);
  maps.same(AxisMaps::in(0, 0), AxisMaps::out(0, 0));
  maps.same(filters, AxisMaps::out(0, 1));
  if (view.has(2)) maps.same(AxisMaps::in(2, 0), filters);
  for (std::size_t i = 2; i < x.size(); ++i) {
    for (auto port : {AxisMaps::in(0, i), AxisMaps::in(1, i), AxisMaps::out(0, i)}) maps.pin(port, "spatial axis of a convolution");
  }
  if (group == 1) {
    maps.reduce(channels, inner);
  } else if (!w[0].known() || !w[1].known()) {
    for (auto port : {channels, filters, inner}) maps.pin(port, "grouped convolution of symbolic width");
  } else if (depthwise(view)) {
    maps.blocks(channels, 1, filters, w[0].value() / group);
  } else {
    // Groups stay and stay equal: position p of all groups goes at once, on the input's side and on the output's.
    const std::int64_t reads = w[1].value(), makes = w[0].value() / group;
    for (std::int64_t g = 0; g < group; ++g) {
      maps.range(channels, g * reads, inner, 0, reads);
      if (g > 0) maps.range(filters, g * makes, filters, 0, makes);
    }
  }
}

double macs_conv(const NodeView& view, const Bindings& bindings) {
  const Shape& w = view.in(1).shape;
  return elements(view.out(0).shape, bindings) * elements(Shape(w.begin() + 1, w.end()), bindings);
}

/// A depthwise convolution has as many groups as channels.
void adjust_conv(Adjust& adjust) {
  const NodeView view{adjust.graph, adjust.node, adjust.before};
  const auto* kept = adjust.kept(adjust.node.input(0), 1);
  if (kept && depthwise(view)) adjust.node.attributes["group"] = static_cast<std::int64_t>(kept->size());
}

const RegisterOperator conv{{"Conv", "", 1, infer_conv, axes_conv, macs_conv, adjust_conv, true}};

}  // namespace
}  // namespace espalier
