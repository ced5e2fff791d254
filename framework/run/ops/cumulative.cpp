#include <ATen/ops/cat.h>
#include <ATen/ops/cumprod.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/flip.h>
#include <ATen/ops/full_like.h>

#include "run/op.h"
#include "run/ops/unsigned.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;

/// `exclusive`: an element counts from its successor on, the first result is what nothing adds up to; `reverse`: from the end.
Results cumulative(const RunView& v, bool product) {
  const std::vector<std::int64_t> list = v.integers(1);
  if (list.size() != 1) v.fail("the axis is not one number");
  const c10::ScalarType type = v.in(0).scalar_type();
  at::Tensor x = widened(v.in(0));
  const std::int64_t axis = v.wrap(list[0], x.dim());
  const bool reverse = v.node.integer("reverse", 0) != 0;
  if (reverse) x = at::flip(x, axis);
  if (v.node.integer("exclusive", 0) != 0 && x.size(axis) > 0) {
    const at::Tensor first = at::full_like(x.narrow(axis, 0, 1), product ? 1 : 0);
    x = at::cat({first, x.narrow(axis, 0, x.size(axis) - 1)}, axis);
  }
  x = product ? at::cumprod(x, axis, x.scalar_type()) : at::cumsum(x, axis, x.scalar_type());
  return {narrowed(reverse ? at::flip(x, axis) : x, type)};
}
Results cum_sum(const RunView& v) { return cumulative(v, false); }
Results cum_prod(const RunView& v) { return cumulative(v, true); }

const RegisterRun entries[] = {{"", "CumSum", cum_sum}, {"", "CumProd", cum_prod}};

}  // namespace
}  // namespace espalier
