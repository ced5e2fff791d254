/// Reductions; axes as attribute or (13 for the sum, 18 for the others) as input.
#include <algorithm>

#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

bool keeps(const NodeView& view) { return view.node.integer("keepdims", 1) != 0; }

/// Which axes go; nothing where only running tells.
std::optional<std::vector<bool>> reduced(const NodeView& view) {
  const std::size_t rank = view.in(0).shape.size();
  const IntegerList axes = integer_list(view, "axes", 1);
  if (!axes.given || axes.count == 0U) return std::vector<bool>(rank, view.node.integer("noop_with_empty_axes", 0) == 0);
  if (!axes.values) return axes.count == rank ? std::optional(std::vector<bool>(rank, true)) : std::nullopt;
  std::vector<bool> out(rank, false);
  for (std::size_t a : normalized(view, *axes.values, rank)) out[a] = true;
  return out;
}

/// Axes that are an input: a length is kept or becomes 1, and that many of them go.
ValueInfo undecided(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  if (keeps(view)) {
    Shape out = opaque_shape(view, x.shape.size());
    for (std::size_t i = 0; i < out.size(); ++i)
      if (x.shape[i] == Dim(1)) out[i] = 1;
    return value(x.dtype, std::move(out));
  }
  const auto count = integer_list(view, "axes", 1).count;
  if (!count) return {x.dtype, {}, std::nullopt, false};
  if (*count > x.shape.size()) view.fail(std::to_string(*count) + " axes of a value of rank " + std::to_string(x.shape.size()));
  return value(x.dtype, opaque_shape(view, x.shape.size() - *count));
}

/// The number of elements of a shape, as exporters compute it.
Content folded(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  if (!x.content || x.dtype != DType::i64) return std::nullopt;
  const bool product = view.node.op == "ReduceProd";
  if (!product && view.node.op != "ReduceSum") return std::nullopt;
  Dim all(product ? 1 : 0);
  for (const Dim& d : *x.content) all = product ? all * d : all + d;
  return std::vector<Dim>{all};
}

std::vector<ValueInfo> infer_reduce(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  const auto gone = reduced(view);
  if (!gone) return {undecided(view)};
  Shape out;
  for (std::size_t i = 0; i < x.shape.size(); ++i) {
    if (!(*gone)[i])
      out.push_back(x.shape[i]);
    else if (keeps(view))
      out.push_back(1);
  }
  const bool all = std::find(gone->begin(), gone->end(), false) == gone->end();
  return {value(x.dtype, std::move(out), all ? folded(view) : std::nullopt)};
}

/// A mean and extremes change with the channels that are left. A sum would not, were every masked channel zero here; but what a
/// sigmoid or an exponential gave back is counted, and one node does not see that.
void axes_reduce(const NodeView& view, AxisMaps& maps) {
  const auto gone = reduced(view);
  pin_input(view, maps, 1, "a list of axes");
  if (!gone) {
    pin_input(view, maps, 0, "the axes of this " + view.node.op + " are not constant");
    pin_output(view, maps, 0, "the axes of this " + view.node.op + " are not constant");
    return;
  }
  std::size_t o = 0;
  for (std::size_t i = 0; i < gone->size(); ++i) {
    if (!(*gone)[i] && view.node.op == "ReduceLogSum") {
      maps.pin(AxisMaps::in(0, i), "the logarithm of a zeroed channel is not finite");
      maps.pin(AxisMaps::out(0, o), "the logarithm of a zeroed channel is not finite");
    } else if (!(*gone)[i]) {
      maps.same(AxisMaps::in(0, i), AxisMaps::out(0, o));
    } else {
      maps.whole(AxisMaps::in(0, i), false, view.node.op + " over this axis");
    }
    if (!(*gone)[i] || keeps(view)) ++o;
  }
}

const bool registered = [] {
  for (const char* name : {"ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum",
                           "ReduceLogSumExp", "ReduceSumSquare"})
    for (int since : {1, 18}) RegisterOperator({name, "", since, infer_reduce, axes_reduce, nullptr, nullptr, true});
  for (int since : {1, 13}) RegisterOperator({"ReduceSum", "", since, infer_reduce, axes_reduce, nullptr, nullptr, true});
  return true;
}();

}  // namespace
}  // namespace espalier
