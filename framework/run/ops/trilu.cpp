#include <ATen/ops/ones.h>
#include <ATen/ops/tril.h>
#include <ATen/ops/triu.h>

#include <algorithm>

#include "run/op.h"
#include "run/ops/integers.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;

/// A diagonal far outside of the matrix is as good as one just outside of it.
std::int64_t near(std::int64_t diagonal, const at::Tensor& x) {
  return std::clamp<std::int64_t>(diagonal, -x.size(-2) - 1, x.size(-1) + 1);
}

Results trilu(const RunView& v) {
  const at::Tensor& x = v.in(0);
  if (x.dim() < 2) v.fail("the input is no matrix");
  std::int64_t diagonal = 0;
  if (v.has(1)) {
    const auto given = v.integers(1);
    if (given.size() != 1) v.fail("the diagonal is no one number");
    diagonal = near(given[0], x);
  }
  const at::Tensor wide = ops::widened(x);
  const at::Tensor out = v.node.integer("upper", 1) != 0 ? at::triu(wide, diagonal) : at::tril(wide, diagonal);
  return {ops::narrowed(out, x.scalar_type())};
}

Results eye_like(const RunView& v) {
  const at::Tensor& x = v.in(0);
  if (x.dim() != 2) v.fail("the input is no matrix");
  const auto stated = static_cast<DType>(v.node.integer("dtype", 0));
  const std::int64_t diagonal = near(v.node.integer("k", 0), x);
  const at::Tensor out = at::ones(x.sizes(), at::TensorOptions().dtype(at::kByte)).triu(diagonal).tril(diagonal);
  return {out.to(v.node.has("dtype") ? v.computed(stated) : x.scalar_type())};
}

const RegisterRun entries[] = {{"", "Trilu", trilu}, {"", "EyeLike", eye_like}};

}  // namespace
}  // namespace espalier
