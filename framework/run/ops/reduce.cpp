#include <ATen/ops/amax.h>
#include <ATen/ops/amin.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/sum.h>

#include "run/op.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;

/// Axes as attribute or input; none means all, or nothing at all with noop_with_empty_axes.
struct Reduction {
  std::vector<std::int64_t> axes;
  bool keep, nothing;
  explicit Reduction(const RunView& v) : keep(v.node.integer("keepdims", 1) != 0), nothing(false) {
    const std::int64_t rank = v.in(0).dim();
    if (v.node.has("axes")) {
      axes = v.node.integers("axes", {});
    } else if (v.has(1)) {
      axes = v.integers(1);
    }
    axes = v.wrap(axes, rank);
    if (!axes.empty()) return;
    nothing = v.node.integer("noop_with_empty_axes", 0) != 0;
    for (std::int64_t i = 0; i < rank; ++i) axes.push_back(i);
  }
};

Results reduce_mean(const RunView& v) {
  const Reduction r(v);
  if (r.nothing || r.axes.empty()) return {v.in(0)};
  if (!v.in(0).is_floating_point()) v.fail("the mean of integers is not supported");
  return {at::mean(v.in(0), r.axes, r.keep)};
}
Results reduce_sum(const RunView& v) {
  const Reduction r(v);
  if (r.nothing || r.axes.empty()) return {v.in(0)};
  return {at::sum(v.in(0), r.axes, r.keep, v.in(0).scalar_type())};
}
Results reduce_max(const RunView& v) {
  const Reduction r(v);
  if (r.nothing || r.axes.empty()) return {v.in(0)};
  return {at::amax(v.in(0), r.axes, r.keep)};
}
Results reduce_min(const RunView& v) {
  const Reduction r(v);
  if (r.nothing || r.axes.empty()) return {v.in(0)};
  return {at::amin(v.in(0), r.axes, r.keep)};
}

const RegisterRun entries[] = {
    {"", "ReduceMean", reduce_mean}, {"", "ReduceSum", reduce_sum}, {"", "ReduceMax", reduce_max}, {"", "ReduceMin", reduce_min}};

}  // namespace
}  // namespace espalier
