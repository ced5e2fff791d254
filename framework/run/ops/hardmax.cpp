#include <ATen/ops/argmax.h>
#include <ATen/ops/scatter.h>
#include <ATen/ops/zeros_like.h>

#include "run/op.h"

namespace espalier {
namespace {

at::Tensor first_of_largest(const at::Tensor& x, std::int64_t axis) {
  if (x.numel() == 0) return x;
  return at::scatter(at::zeros_like(x), axis, at::argmax(x, axis, /*keepdim=*/true), 1);
}

/// Up to opset 12 the tensor is seen as a matrix, cut before `axis`.
std::vector<at::Tensor> hardmax(const RunView& v) {
  const at::Tensor& x = v.in(0);
  if (v.opset() >= 13) return {first_of_largest(x, v.axis("axis", -1, x.dim()))};
  const std::int64_t axis = v.axis("axis", 1, x.dim() == 1 ? 2 : x.dim());
  const at::Tensor rows = axis == x.dim() ? x.unsqueeze(axis) : x.flatten(axis);
  return {first_of_largest(rows, axis).reshape(x.sizes())};
}

const RegisterRun entry{"", "Hardmax", hardmax};

}  // namespace
}  // namespace espalier
