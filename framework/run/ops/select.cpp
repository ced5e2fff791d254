#include <ATen/TensorOperators.h>
#include <ATen/ops/_unique2.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/full.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/scatter_reduce.h>
#include <ATen/ops/unique_dim.h>

#include "run/op.h"
#include "run/ops/unsigned.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;

Results non_zero(const RunView& v) { return {at::nonzero(as_signed(v.in(0))).t().contiguous()}; }

/// What the condition marks along the axis, or of the flattened input; past the condition's end nothing.
Results compress(const RunView& v) {
  const at::Tensor &x = v.in(0), &condition = v.in(1);
  if (condition.dim() != 1 || condition.scalar_type() != at::kBool) v.fail("the condition is no list of booleans");
  const bool flat = !v.node.has("axis");
  const std::int64_t axis = flat ? 0 : v.axis("axis", 0, x.dim());
  const at::Tensor from = flat ? as_signed(x).reshape({-1}) : as_signed(x);
  return {narrowed(at::index_select(from, axis, at::nonzero(condition).reshape({-1})), x.scalar_type())};
}

/// LibTorch tells everything but the first place of an element.
Results unique(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const bool flat = !v.node.has("axis"), flags = x.scalar_type() == at::kBool;
  if (x.numel() == 0) v.refuse("an input without elements is not supported");
  if (x.is_floating_point() && at::isnan(x).any().item<bool>()) v.refuse("which of several NaN are equal is not defined");
  const std::int64_t axis = flat ? 0 : v.axis("axis", 0, x.dim());
  const at::Tensor wide = flags ? x.to(at::kByte) : ordered(x);
  auto [y, inverse, counts] =
      flat ? at::_unique2(wide.reshape({-1}), true, true, true) : at::unique_dim(wide, axis, true, true, true);
  inverse = inverse.reshape({-1});
  const std::int64_t n = inverse.numel();
  at::Tensor first = at::full(counts.sizes(), n, inverse.options());
  first = at::scatter_reduce(first, 0, inverse, at::arange(n, inverse.options()), "amin");
  if (v.node.integer("sorted", 1) == 0) {
    const at::Tensor order = at::argsort(first);
    y = at::index_select(y, axis, order);
    counts = at::index_select(counts, 0, order);
    first = at::index_select(first, 0, order);
    inverse = at::index_select(at::argsort(order), 0, inverse);  // the inverse permutation numbers anew
  }
  return {flags ? y.to(at::kBool) : from_ordered(y, x.scalar_type()), first, inverse, counts};
}

const RegisterRun entries[] = {{"", "NonZero", non_zero}, {"", "Compress", compress}, {"", "Unique", unique}};

}  // namespace
}  // namespace espalier
