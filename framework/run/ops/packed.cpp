/// What run/prepack.h puts in the place of products with constant matrices and of look-ups. No part of any file, so it has no
/// neighbour in graph/ops/.
#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include "run/op.h"
#include "run/packed.h"

namespace espalier {
namespace {

PackedMatrix matrix(const RunView& v) {
  PackedMatrix w;
  w.kind = static_cast<PackedMatrix::Kind>(v.node.integer("kind", 0));
  w.outputs = v.node.integer("outputs", 0);
  w.inputs = v.node.integer("inputs", 0);
  w.group = v.node.integer("group", 0);
  w.rows = v.in(1);
  if (v.has(2)) w.scale = v.in(2);
  if (v.has(3)) w.zero = v.in(3);
  return w;
}

/// x · W, and Gemm's C added.
std::vector<at::Tensor> packed_matmul(const RunView& v) {
  const PackedMatrix w = matrix(v);
  const at::Tensor& x = v.in(0);
  if (x.dim() < 1 || x.size(-1) != w.inputs)
    v.fail(fmt::format("input 0 has {} columns, expected {}", x.dim() < 1 ? 0 : x.size(-1), w.inputs));
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = w.outputs;
  const at::Tensor product = multiply(x.to(at::kFloat).contiguous().reshape({-1, w.inputs}), w).reshape(shape);
  return {v.has(4) ? product + v.in(4) : product};
}

std::vector<at::Tensor> packed_gather(const RunView& v) { return {rows(v.in(0), matrix(v))}; }

const RegisterRun entries[] = {{"espalier", "PackedMatMul", packed_matmul}, {"espalier", "PackedGather", packed_gather}};

}  // namespace
}  // namespace espalier
