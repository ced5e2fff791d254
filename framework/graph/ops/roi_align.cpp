/// RoiAlign: regions [regions, 4] of pictures x [batch, C, height, width], by number, → [regions, C, output_height, output_width].
#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

std::vector<ValueInfo> infer_roi_align(const NodeView& view) {
  const ValueInfo &x = view.in(0), &regions = view.in(1), &pictures = view.in(2);
  check_rank(view, 0, 4);
  check_rank(view, 1, 2);
  check_rank(view, 2, 1);
  check_equal(view, regions.shape[1], 4, "corners of a region");
  check_equal(view, regions.shape[0], pictures.shape[0], "regions against numbers of pictures");
  const std::int64_t height = view.node.integer("output_height", 1), width = view.node.integer("output_width", 1);
  if (height < 1 || width < 1) view.fail("output_height and output_width must be positive");
  return {value(x.dtype, {regions.shape[0], x.shape[1], height, width})};
}

void axes_roi_align(const NodeView& view, AxisMaps& maps) {
  maps.same(AxisMaps::in(0, 1), AxisMaps::out(0, 1));
  for (std::size_t i : {std::size_t{0}, std::size_t{2}, std::size_t{3}}) {
    maps.pin(AxisMaps::in(0, i), "axis that a RoiAlign samples");
    maps.pin(AxisMaps::out(0, i), "axis that a RoiAlign makes");
  }
  pin_input(view, maps, 1, "regions");
  pin_input(view, maps, 2, "numbers of pictures");
}

const bool registered = [] {
  for (int since : {10, 16})
    RegisterOperator({"RoiAlign", "", since, infer_roi_align, axes_roi_align, nullptr, nullptr, true, {1}});
  return true;
}();

}  // namespace
}  // namespace espalier
