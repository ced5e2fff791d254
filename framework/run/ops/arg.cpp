#include <ATen/TensorOperators.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/argmin.h>
#include <ATen/ops/flip.h>
#include <ATen/ops/sort.h>
#include <fmt/format.h>

#include "run/op.h"
#include "run/ops/unsigned.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;

/// The first extreme; the last one where `select_last_index` says so.
Results arg(const RunView& v, bool most) {
  const std::int64_t axis = v.axis("axis", 0, v.in(0).dim());
  const bool keep = v.node.integer("keepdims", 1) != 0, last = v.node.integer("select_last_index", 0) != 0;
  const at::Tensor wide = ordered(v.in(0)), x = last ? at::flip(wide, axis) : wide;
  const at::Tensor place = most ? at::argmax(x, axis, keep) : at::argmin(x, axis, keep);
  return {last ? x.size(axis) - 1 - place : place};
}
Results arg_max(const RunView& v) { return arg(v, true); }
Results arg_min(const RunView& v) { return arg(v, false); }

/// Of equal elements the one with the lower index comes first: LibTorch's own topk does not promise that, a stable sort does.
/// Order is given whether or not `sorted` asks for it.
Results topk(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const std::int64_t axis = v.axis("axis", -1, x.dim());
  if (v.opset() >= 10 && v.in(1).numel() != 1) v.fail("k is not one number");
  const std::int64_t k = v.opset() < 10 ? v.node.integer("k", 0) : v.integers(1)[0];
  if (k < 0 || k > x.size(axis)) v.fail(fmt::format("k is {} for an axis of length {}", k, x.size(axis)));
  const auto [values, indices] = at::sort(ordered(x), true, axis, v.node.integer("largest", 1) != 0);
  return {from_ordered(values.narrow(axis, 0, k), x.scalar_type()), indices.narrow(axis, 0, k)};
}

const RegisterRun entries[] = {{"", "ArgMax", arg_max}, {"", "ArgMin", arg_min}, {"", "TopK", topk}};

}  // namespace
}  // namespace espalier
