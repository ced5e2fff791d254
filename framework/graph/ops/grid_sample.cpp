/// Sampling at places that another value says: GridSample, and AffineGrid, which makes such places.
#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

std::vector<ValueInfo> infer_grid_sample(const NodeView& view) {
  const ValueInfo &x = view.in(0), &grid = view.in(1);
  if (x.shape.size() < 3) view.fail("input 0 of shape " + text(x.shape) + " has no spatial axis");
  check_rank(view, 1, x.shape.size());
  check_equal(view, grid.shape[0], x.shape[0], "batch of the grid");
  check_equal(view, grid.shape.back(), static_cast<std::int64_t>(x.shape.size() - 2), "coordinates of the grid");
  Shape out{x.shape[0], x.shape[1]};
  out.insert(out.end(), grid.shape.begin() + 1, grid.shape.end() - 1);
  return {value(x.dtype, std::move(out))};
}

void axes_grid_sample(const NodeView& view, AxisMaps& maps) {
  maps.same(AxisMaps::in(0, 0), AxisMaps::out(0, 0));
  maps.same(AxisMaps::in(1, 0), AxisMaps::out(0, 0));
  maps.same(AxisMaps::in(0, 1), AxisMaps::out(0, 1));
  for (std::size_t i = 1; i < view.in(0).shape.size(); ++i) {
    maps.pin(AxisMaps::in(1, i), "places that a GridSample samples");
    if (i < 2) continue;
    maps.pin(AxisMaps::in(0, i), "spatial axis of a GridSample");
    maps.pin(AxisMaps::out(0, i), "spatial axis of a GridSample");
  }
}

/// theta [batch, axes, axes + 1] and the size of a picture, [batch, C, spatial…] → [batch, spatial…, axes].
std::vector<ValueInfo> infer_affine_grid(const NodeView& view) {
  const ValueInfo &theta = view.in(0), &size = view.in(1);
  check_rank(view, 0, 3);
  check_rank(view, 1, 1);
  const Dim& axes = theta.shape[1];
  check_equal(view, theta.shape[2], axes + 1, "columns of theta");
  check_equal(view, size.shape[0], axes + 2, "size against theta");
  std::int64_t count = axes.known() ? axes.value() : size.shape[0].known() ? size.shape[0].value() - 2 : -1;
  if (count < 0 && theta.shape[2].known()) count = theta.shape[2].value() - 1;
  if (count < 0) view.refuse("the number of spatial axes is not known");
  if (count != 2 && count != 3) view.fail("theta of shape " + text(theta.shape) + " is for no picture of 2 or 3 axes");
  if (size.content) check_equal(view, (*size.content)[0], theta.shape[0], "batch of theta");
  Shape out{theta.shape[0]};
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i)
    out.push_back(size.content ? (*size.content)[i + 2] : opaque(view, 0, i + 1));
  out.emplace_back(count);
  return {value(theta.dtype, std::move(out))};
}

void axes_affine_grid(const NodeView& view, AxisMaps& maps) {
  maps.same(AxisMaps::in(0, 0), AxisMaps::out(0, 0));
  pin_input(view, maps, 1, "the size of a grid");
  for (std::size_t i = 1; i < 3; ++i) maps.pin(AxisMaps::in(0, i), "an affine map");
  for (std::size_t i = 1; i < view.out(0).shape.size(); ++i) maps.pin(AxisMaps::out(0, i), "a grid");
}

const bool registered = [] {
  for (int since : {16, 20})
    RegisterOperator({"GridSample", "", since, infer_grid_sample, axes_grid_sample, nullptr, nullptr, true});
  RegisterOperator({"AffineGrid", "", 20, infer_affine_grid, axes_affine_grid, nullptr, nullptr, true});
  return true;
}();

}  // namespace
}  // namespace espalier
