#include <ATen/ops/linalg_det.h>

#include "run/op.h"

namespace espalier {
namespace {

std::vector<at::Tensor> det(const RunView& v) {
  const at::Tensor& x = v.in(0);
  if (x.dim() < 2 || x.size(-1) != x.size(-2)) v.fail("the input is no square matrix, nor a batch of them");
  return {at::linalg_det(x)};
}

const RegisterRun entry{"", "Det", det};

}  // namespace
}  // namespace espalier
