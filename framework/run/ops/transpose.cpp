#include <numeric>

#include "run/op.h"

namespace espalier {
namespace {

std::vector<at::Tensor> transpose(const RunView& v) {
  const at::Tensor& x = v.in(0);
  std::vector<std::int64_t> order(static_cast<std::size_t>(x.dim()));
  std::iota(order.rbegin(), order.rend(), 0);
  return {x.permute(v.wrap(v.node.integers("perm", order), x.dim()))};
}

const RegisterRun entry{"", "Transpose", transpose};

}  // namespace
}  // namespace espalier
