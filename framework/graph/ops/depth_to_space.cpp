/// Channels moved into space and back: DepthToSpace, SpaceToDepth.
#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

std::int64_t block_of(const NodeView& view) {
  constexpr std::int64_t kLargest = 1 << 20;
  const std::int64_t block = view.node.integer("blocksize", 0);
  if (block < 1 || block > kLargest) view.fail("blocksize is " + std::to_string(block));
  check_rank(view, 0, 4);
  return block;
}

/// The channels' own index is the innermost one; else it is the outermost ("CRD").
bool depth_last(const NodeView& view) {
  const std::string mode = view.node.text("mode", "DCR");
  if (mode != "DCR" && mode != "CRD") view.fail("mode is '" + mode + "'");
  return mode == "DCR";
}

void check_divides(const NodeView& view, std::size_t axis, std::int64_t by) {
  const Dim& length = view.in(0).shape[axis];
  if (length.known() && length.constant() % by != 0)
    view.fail("axis " + std::to_string(axis) + " of shape " + text(view.in(0).shape) + " does not divide by " + std::to_string(by));
}

std::vector<ValueInfo> infer_to_space(const NodeView& view) {
  const std::int64_t block = block_of(view);
  depth_last(view);
  check_divides(view, 1, block * block);
  const ValueInfo& x = view.in(0);
  return {value(x.dtype, {x.shape[0], floor_div(x.shape[1], block * block), x.shape[2] * block, x.shape[3] * block})};
}

std::vector<ValueInfo> infer_to_depth(const NodeView& view) {
  const std::int64_t block = block_of(view);
  depth_last(view);
  check_divides(view, 2, block);
  check_divides(view, 3, block);
  const ValueInfo& x = view.in(0);
  return {value(x.dtype, {x.shape[0], x.shape[1] * (block * block), floor_div(x.shape[2], block), floor_div(x.shape[3], block)})};
}

/// `deep` has block² channels for each one of `flat`, and one row and column for `block` of them.
void link(const NodeView& view, AxisMaps& maps, bool to_space) {
  constexpr std::int64_t kMostParts = 256;
  const std::int64_t block = block_of(view), parts = block * block;
  const auto deep = [&](std::size_t axis) { return to_space ? AxisMaps::in(0, axis) : AxisMaps::out(0, axis); };
  const auto flat = [&](std::size_t axis) { return to_space ? AxisMaps::out(0, axis) : AxisMaps::in(0, axis); };
  const Dim channels = (to_space ? view.out(0) : view.in(0)).shape[1];
  maps.same(AxisMaps::in(0, 0), AxisMaps::out(0, 0));
  for (std::size_t axis : {2, 3}) maps.blocks(deep(axis), 1, flat(axis), block);
  if (!depth_last(view)) {
    maps.blocks(deep(1), parts, flat(1), 1);
  } else if (channels.known() && parts <= kMostParts) {
    for (std::int64_t k = 0; k < parts; ++k) maps.range(deep(1), k * channels.value(), flat(1), 0, channels.value());
  } else {
    maps.pin(deep(1), "channels of an unknown number in space");
    maps.pin(flat(1), "channels of an unknown number in space");
  }
}

void axes_to_space(const NodeView& view, AxisMaps& maps) { link(view, maps, true); }
void axes_to_depth(const NodeView& view, AxisMaps& maps) { link(view, maps, false); }

const RegisterOperator to_space{{"DepthToSpace", "", 1, infer_to_space, axes_to_space, nullptr, nullptr, true}};
const RegisterOperator to_depth{{"SpaceToDepth", "", 1, infer_to_depth, axes_to_depth, nullptr, nullptr, true}};

}  // namespace
}  // namespace espalier
