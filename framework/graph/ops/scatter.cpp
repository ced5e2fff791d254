/// Values with updates written into them: Scatter, ScatterElements, ScatterND, TensorScatter.
#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

void check_updates(const NodeView& view) {
  same_types(view, {0, 2});
  const std::string how = view.node.text("reduction", "none");
  for (const char* known : {"none", "add", "mul", "max", "min"})
    if (how == known) return;
  view.fail("reduction is '" + how + "'");
}

std::vector<ValueInfo> infer_elements(const NodeView& view) {
  const ValueInfo &data = view.in(0), &indices = view.in(1), &updates = view.in(2);
  const std::size_t axis = view.axis("axis", 0, data.shape.size());
  check_updates(view);
  check_rank(view, 1, data.shape.size());
  check_rank(view, 2, data.shape.size());
  for (std::size_t i = 0; i < data.shape.size(); ++i) {
    const Dim &d = data.shape[i], &n = indices.shape[i];
    check_equal(view, n, updates.shape[i], "axis " + std::to_string(i) + " of indices and updates differs");
    if (i != axis && d.known() && n.known() && n.constant() > d.constant())
      view.fail("indices of shape " + text(indices.shape) + " reach past data of shape " + text(data.shape));
  }
  return {value(data.dtype, data.shape)};
}

/// Along other axes than its own every index stands for itself, where the updates are as long as the data.
void axes_elements(const NodeView& view, AxisMaps& maps) {
  const Shape &data = view.in(0).shape, &indices = view.in(1).shape;
  const std::size_t axis = view.axis("axis", 0, data.size());
  for (std::size_t i = 0; i < data.size(); ++i) {
    for (std::size_t slot = 0; slot < 3; ++slot) {
      if (i == axis || data[i] != indices[i])
        maps.pin(AxisMaps::in(slot, i), "elements are written by number");
      else
        maps.same(AxisMaps::in(slot, i), AxisMaps::out(0, i));
    }
    if (i == axis || data[i] != indices[i]) maps.pin(AxisMaps::out(0, i), "elements are written by number");
  }
}

/// How many axes an index of ScatterND names; nothing where only running tells.
std::optional<std::size_t> depth_of(const NodeView& view) {
  const Shape &data = view.in(0).shape, &indices = view.in(1).shape;
  if (indices.empty() || data.empty()) view.fail("a scalar has nothing to write to");
  if (!indices.back().known()) return std::nullopt;
  const std::int64_t depth = indices.back().constant();
  if (depth < 1 || depth > static_cast<std::int64_t>(data.size()))
    view.fail("indices of shape " + text(indices) + " name " + std::to_string(depth) + " axes of data of shape " + text(data));
  return static_cast<std::size_t>(depth);
}

std::vector<ValueInfo> infer_nd(const NodeView& view) {
  const ValueInfo &data = view.in(0), &indices = view.in(1);
  check_updates(view);
  if (const auto depth = depth_of(view)) {
    Shape wanted(indices.shape.begin(), indices.shape.end() - 1);
    wanted.insert(wanted.end(), data.shape.begin() + static_cast<std::ptrdiff_t>(*depth), data.shape.end());
    check_rank(view, 2, wanted.size());
    for (std::size_t i = 0; i < wanted.size(); ++i)
      check_equal(view, wanted[i], view.in(2).shape[i], "axis " + std::to_string(i) + " of the updates");
  }
  return {value(data.dtype, data.shape)};
}

void axes_nd(const NodeView& view, AxisMaps& maps) {
  const std::size_t rank = view.in(0).shape.size(), rows = view.in(1).shape.size() - 1;
  const std::size_t depth = depth_of(view).value_or(rank);
  const std::string reason = "elements are written by number";
  pin_input(view, maps, 1, reason);
  for (std::size_t i = 0; i < view.in(2).shape.size(); ++i) {
    if (i < rows || depth == rank)
      maps.pin(AxisMaps::in(2, i), reason);
    else
      maps.same(AxisMaps::in(2, i), AxisMaps::out(0, i - rows + depth));
  }
  for (std::size_t i = 0; i < rank; ++i) {
    if (i >= depth) {
      maps.same(AxisMaps::in(0, i), AxisMaps::out(0, i));
      continue;
    }
    maps.pin(AxisMaps::in(0, i), reason);
    maps.pin(AxisMaps::out(0, i), reason);
  }
}

/// The sequence axis of a cache; the batch comes first.
std::size_t sequence_axis(const NodeView& view) {
  const std::size_t axis = view.axis("axis", -2, view.in(0).shape.size());
  if (axis == 0) view.fail("axis 0 is the batch");
  return axis;
}

std::vector<ValueInfo> infer_cache(const NodeView& view) {
  const ValueInfo &past = view.in(0), &update = view.in(1);
  const std::size_t axis = sequence_axis(view);
  const std::string mode = view.node.text("mode", "linear");
  if (mode != "linear" && mode != "circular") view.fail("mode is '" + mode + "'");
  same_types(view, {0, 1});
  check_rank(view, 1, past.shape.size());
  for (std::size_t i = 0; i < past.shape.size(); ++i) {
    const Dim &whole = past.shape[i], &part = update.shape[i];
    if (i != axis) check_equal(view, whole, part, "axis " + std::to_string(i) + " of cache and update differs");
    if (i == axis && whole.known() && part.known() && part.constant() > whole.constant())
      view.fail("an update of length " + part.text() + " for a cache of length " + whole.text());
  }
  if (view.has(2)) {
    check_rank(view, 2, 1);
    check_equal(view, past.shape[0], view.in(2).shape[0], "the batch and the number of places differ");
  }
  return {value(past.dtype, past.shape)};
}

void axes_cache(const NodeView& view, AxisMaps& maps) {
  const std::size_t axis = sequence_axis(view);
  if (view.has(2)) maps.same(AxisMaps::in(2, 0), AxisMaps::out(0, 0));
  for (std::size_t i = 0; i < view.in(0).shape.size(); ++i) {
    for (std::size_t slot = 0; slot < 2; ++slot) {
      if (i == axis)
        maps.pin(AxisMaps::in(slot, i), "places of a cache");
      else
        maps.same(AxisMaps::in(slot, i), AxisMaps::out(0, i));
    }
    if (i == axis) maps.pin(AxisMaps::out(0, i), "places of a cache");
  }
}

const RegisterOperator scatter{{"Scatter", "", 9, infer_elements, axes_elements, nullptr, nullptr, true}};
const RegisterOperator elements{{"ScatterElements", "", 11, infer_elements, axes_elements, nullptr, nullptr, true}};
const RegisterOperator nd{{"ScatterND", "", 11, infer_nd, axes_nd, nullptr, nullptr, true}};
const RegisterOperator cache{{"TensorScatter", "", 24, infer_cache, axes_cache, nullptr, nullptr, true}};

}  // namespace
}  // namespace espalier
