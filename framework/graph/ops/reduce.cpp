/// Reductions: ReduceMean, ReduceSum, ReduceMax, ReduceMin; axes as attribute or (13 for the sum, 18 for the others) as input.
#include <algorithm>

#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

std::vector<bool> reduced(const NodeView& view) {
  const std::size_t rank = view.in(0).shape.size();
  const auto axes = attribute_or_input(view, "axes", 1);
  if (!axes || axes->empty()) return std::vector<bool>(rank, view.node.integer("noop_with_empty_axes", 0) == 0);
  std::vector<bool> out(rank, false);
  for (std::size_t a : normalized(view, *axes, rank)) out[a] = true;
  return out;
}

std::vector<ValueInfo> infer_reduce(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  const bool keep = view.node.integer("keepdims", 1) != 0;
  const auto gone = reduced(view);
  Shape out;
  for (std::size_t i = 0; i < x.shape.size(); ++i) {
    if (!gone[i])
      out.push_back(x.shape[i]);
    else if (keep)
      out.push_back(1);
  }
  return {value(x.dtype, std::move(out))};
}

/// A mean and extremes change with the channels that are left. A sum would not, were every masked channel zero here; but what a
/// sigmoid or an exponential gave back is counted, and one node does not see that.
void axes_reduce(const NodeView& view, AxisMaps& maps) {
  const bool keep = view.node.integer("keepdims", 1) != 0;
  const auto gone = reduced(view);
  pin_input(view, maps, 1, "a list of axes");
  std::size_t o = 0;
  for (std::size_t i = 0; i < gone.size(); ++i) {
    if (!gone[i])
      maps.same(AxisMaps::in(0, i), AxisMaps::out(0, o));
    else
      maps.whole(AxisMaps::in(0, i), false, view.node.op + " over this axis");
    if (!gone[i] || keep) ++o;
  }
}

const bool registered = [] {
  for (const char* name : {"ReduceMean", "ReduceMax", "ReduceMin"})
    for (int since : {1, 11, 13, 18}) RegisterOperator({name, "", since, infer_reduce, axes_reduce, nullptr, nullptr, true});
  for (int since : {1, 11, 13}) RegisterOperator({"ReduceSum", "", since, infer_reduce, axes_reduce, nullptr, nullptr, true});
  return true;
}();

}  // namespace
}  // namespace espalier
