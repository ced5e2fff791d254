/// ConvTranspose: x [batch, C, spatial…], weight [C, M/group, kernel…], optional bias [M] → [batch, M, spatial…].
#include "graph/ops/convolved.h"

namespace espalier {
namespace {

using namespace ops;

void check_weights(const NodeView& view) {
  const Shape &x = view.in(0).shape, &w = view.in(1).shape;
  if (x.size() < 3) view.fail("input 0 of shape " + text(x) + " has no spatial axis");
  check_rank(view, 1, x.size());
  const std::int64_t group = view.node.integer("group", 1);
  if (group < 1) view.fail("group is " + std::to_string(group));
  check_equal(view, x[1], w[0], "channels against weight");
  if (w[0].known() && w[0].value() % group != 0)
    view.fail(w[0].text() + " channels do not divide into " + std::to_string(group) + " groups");
  if (!view.has(2)) return;
  check_rank(view, 2, 1);
  check_equal(view, view.in(2).shape[0], w[1] * group, "bias against filters");
}

/// Lengths of the output's spatial axes.
Shape spread(const NodeView& view) {
  const Shape& x = view.in(0).shape;
  const auto w = windows(view, kernel_of(view, 1));
  const auto extra = view.node.integers("output_padding", Integers(w.size(), 0));
  const auto asked = view.node.integers("output_shape", {});
  const std::string pad = view.node.text("auto_pad", "NOTSET");
  const bool same = pad == "SAME_UPPER" || pad == "SAME_LOWER";
  if (!same && pad != "NOTSET" && pad != "VALID") view.fail("auto_pad is '" + pad + "'");
  if (extra.size() != w.size() || (!asked.empty() && asked.size() != w.size()))
    view.fail("output_padding or output_shape does not have one entry for each of " + std::to_string(w.size()) + " spatial axes");
  Shape out;
  for (std::size_t i = 0; i < w.size(); ++i) {
    if (extra[i] < 0) view.fail("output_padding must not be negative");
    Dim length = Dim(w[i].stride) * (x[i + 2] - 1) + extra[i] + Dim(w[i].dilation) * (w[i].kernel - 1) + 1;
    if (!asked.empty()) {
      length = asked[i];
    } else if (same) {
      length = x[i + 2] * w[i].stride;
    } else if (pad == "NOTSET") {
      length = length - w[i].pad_begin - w[i].pad_end;
    }
    if (length.known() && length.value() < 1) view.fail("nothing is left of spatial axis " + std::to_string(i) + " of " + text(x));
    out.push_back(length);
  }
  return out;
}

std::vector<ValueInfo> infer_conv_transpose(const NodeView& view) {
  same_types(view, {0, 1, 2});
  check_weights(view);
  Shape out{view.in(0).shape[0], view.in(1).shape[1] * view.node.integer("group", 1)};
  for (const Dim& d : spread(view)) out.push_back(d);
  return {value(view.in(0).dtype, std::move(out))};
}

/// One channel makes the filters of one group.
bool depthwise(const NodeView& view) {
  const std::int64_t group = view.node.integer("group", 1);
  return group > 1 && view.in(1).shape[0] == Dim(group);
}

void link_groups(const NodeView& view, AxisMaps& maps) {
  const Shape& w = view.in(1).shape;
  const std::int64_t group = view.node.integer("group", 1);
  const auto channels = AxisMaps::in(0, 1), rows = AxisMaps::in(1, 0), inner = AxisMaps::in(1, 1), filters = AxisMaps::out(0, 1);
  if (!w[0].known() || !w[1].known()) {
    for (auto port : {channels, rows, inner, filters}) maps.pin(port, "grouped convolution of symbolic width");
    return;
  }
  const std::int64_t reads = w[0].value() / group, makes = w[1].value();
  maps.same(channels, rows);
  if (depthwise(view)) {
    maps.blocks(channels, 1, filters, makes);
    if (makes > 1) maps.pin(inner, "filters of one channel");
    return;
  }
  // As in Conv, position p of all groups goes at once on either side.
  for (std::int64_t g = 0; g < group; ++g) {
    maps.range(filters, g * makes, inner, 0, makes);
    if (g > 0) maps.range(rows, g * reads, rows, 0, reads);
  }
}

void axes_conv_transpose(const NodeView& view, AxisMaps& maps) {
  maps.same(AxisMaps::in(0, 0), AxisMaps::out(0, 0));
  if (view.has(2)) maps.same(AxisMaps::in(2, 0), AxisMaps::out(0, 1));
  for (std::size_t i = 2; i < view.in(0).shape.size(); ++i)
    for (auto port : {AxisMaps::in(0, i), AxisMaps::in(1, i), AxisMaps::out(0, i)}) maps.pin(port, "spatial axis of a convolution");
  if (view.node.integer("group", 1) != 1) {
    link_groups(view, maps);
    return;
  }
  maps.reduce(AxisMaps::in(0, 1), AxisMaps::in(1, 0));
  maps.same(AxisMaps::in(1, 1), AxisMaps::out(0, 1));
}

/// Every element of the input meets every element of its group's kernels.
double macs_conv_transpose(const NodeView& view, const Bindings& bindings) {
  const Shape& w = view.in(1).shape;
  return elements(view.in(0).shape, bindings) * elements(Shape(w.begin() + 1, w.end()), bindings);
}

void adjust_conv_transpose(Adjust& adjust) {
  const NodeView view{adjust.graph, adjust.node, adjust.before};
  const auto* kept = adjust.kept(adjust.node.input(0), 1);
  if (kept && depthwise(view)) adjust.node.attributes["group"] = static_cast<std::int64_t>(kept->size());
}

const RegisterOperator conv_transpose{
    {"ConvTranspose", "", 1, infer_conv_transpose, axes_conv_transpose, macs_conv_transpose, adjust_conv_transpose, true}};

}  // namespace
}  // namespace espalier
