#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/amin.h>
#include <ATen/ops/div.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/log.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/prod.h>
#include <ATen/ops/sum.h>

#include <algorithm>
#include <limits>

#include "run/op.h"
#include "run/ops/unsigned.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;

/// Axes as attribute or input, ascending; none means all, or nothing at all with noop_with_empty_axes (what a reduction does
/// beside summing is done all the same).
struct Reduction {
  std::vector<std::int64_t> axes;
  bool keep;
  explicit Reduction(const RunView& v) : keep(v.node.integer("keepdims", 1) != 0) {
    const std::int64_t rank = v.in(0).dim();
    if (v.node.has("axes")) {
      axes = v.node.integers("axes", {});
    } else if (v.has(1)) {
      axes = v.integers(1);
    }
    axes = v.wrap(axes, rank);
    std::sort(axes.begin(), axes.end());
    if (!axes.empty() || v.node.integer("noop_with_empty_axes", 0) != 0) return;
    for (std::int64_t i = 0; i < rank; ++i) axes.push_back(i);
  }
  /// Elements that go into one of the result.
  std::int64_t count(const at::Tensor& x) const {
    std::int64_t n = 1;
    for (std::int64_t axis : axes) n *= x.size(axis);
    return n;
  }
  std::vector<std::int64_t> shape(const at::Tensor& x) const {
    std::vector<std::int64_t> out;
    for (std::int64_t i = 0; i < x.dim(); ++i) {
      const bool gone = std::binary_search(axes.begin(), axes.end(), i);
      if (!gone || keep) out.push_back(gone ? 1 : x.size(i));
    }
    return out;
  }
};

at::Tensor sum(const Reduction& r, const at::Tensor& x) { return r.axes.empty() ? x : at::sum(x, r.axes, r.keep, x.scalar_type()); }

void need_floating(const RunView& v) {
  if (!v.in(0).is_floating_point()) v.refuse("roots and logarithms of integers are not supported");
}

/// Of integers the quotient, rounded towards zero.
Results reduce_mean(const RunView& v) {
  const Reduction r(v);
  const at::Tensor& x = v.in(0);
  if (r.axes.empty()) return {x};
  if (x.is_floating_point()) return {at::mean(x, r.axes, r.keep)};
  if (r.count(x) == 0) v.refuse("the mean of no integers is not defined");
  if (x.scalar_type() == at::kUInt64) v.refuse("the mean of uint64 is not supported");
  return {at::div(at::sum(widened(x), r.axes, r.keep, at::kLong), r.count(x), "trunc").to(x.scalar_type())};
}

Results reduce_sum(const RunView& v) { return {narrowed(sum(Reduction(v), widened(v.in(0))), v.in(0).scalar_type())}; }

Results reduce_sum_square(const RunView& v) {
  const at::Tensor x = widened(v.in(0));
  return {narrowed(sum(Reduction(v), x * x), v.in(0).scalar_type())};
}

Results reduce_l1(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const at::Tensor wide = widened(x);
  return {narrowed(sum(Reduction(v), c10::isSignedType(x.scalar_type()) ? at::abs(wide) : wide), x.scalar_type())};
}

/// The norm's own kernel has a gradient at zero.
Results reduce_l2(const RunView& v) {
  need_floating(v);
  const Reduction r(v);
  return {r.axes.empty() ? at::abs(v.in(0)) : at::linalg_vector_norm(v.in(0), 2, r.axes, r.keep)};
}

Results reduce_log_sum(const RunView& v) {
  need_floating(v);
  return {at::log(sum(Reduction(v), v.in(0)))};
}

Results reduce_log_sum_exp(const RunView& v) {
  need_floating(v);
  const Reduction r(v);
  return {r.axes.empty() ? v.in(0) : at::logsumexp(v.in(0), r.axes, r.keep)};
}

Results reduce_prod(const RunView& v) {
  const Reduction r(v);
  at::Tensor x = widened(v.in(0));
  for (auto axis = r.axes.rbegin(); axis != r.axes.rend(); ++axis) x = at::prod(x, *axis, r.keep, x.scalar_type());
  return {narrowed(x, v.in(0).scalar_type())};
}

/// What every element beats: the extreme of no elements.
at::Tensor beaten(const at::Tensor& x, const std::vector<std::int64_t>& shape, bool most) {
  if (x.is_floating_point()) {
    const double infinity = std::numeric_limits<double>::infinity();
    return at::full(shape, most ? -infinity : infinity, x.options());
  }
  if (x.scalar_type() == at::kBool) return at::full(shape, !most, x.options());
  const bool with_sign = c10::isSignedType(x.scalar_type());
  const auto width = static_cast<int>(8 * x.element_size());
  const std::int64_t least = with_sign ? std::numeric_limits<std::int64_t>::min() >> (64 - width) : 0;
  return narrowed(at::full(shape, most ? least : ~least, x.options().dtype(at::kLong)), x.scalar_type());
}

Results extreme(const RunView& v, bool most) {
  const Reduction r(v);
  const at::Tensor& x = v.in(0);
  if (r.axes.empty()) return {x};
  if (r.count(x) == 0) return {beaten(x, r.shape(x), most)};
  const bool flags = x.scalar_type() == at::kBool;
  const at::Tensor wide = flags ? x.to(at::kByte) : ordered(x);
  const at::Tensor y = most ? at::amax(wide, r.axes, r.keep) : at::amin(wide, r.axes, r.keep);
  return {flags ? y.to(at::kBool) : from_ordered(y, x.scalar_type())};
}
Results reduce_max(const RunView& v) { return extreme(v, true); }
Results reduce_min(const RunView& v) { return extreme(v, false); }

const RegisterRun entries[] = {{"", "ReduceMean", reduce_mean},
                               {"", "ReduceSum", reduce_sum},
                               {"", "ReduceSumSquare", reduce_sum_square},
                               {"", "ReduceL1", reduce_l1},
                               {"", "ReduceL2", reduce_l2},
                               {"", "ReduceLogSum", reduce_log_sum},
                               {"", "ReduceLogSumExp", reduce_log_sum_exp},
                               {"", "ReduceProd", reduce_prod},
                               {"", "ReduceMax", reduce_max},
                               {"", "ReduceMin", reduce_min}};

}  // namespace
}  // namespace espalier
