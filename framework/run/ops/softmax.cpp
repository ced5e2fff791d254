#include <ATen/ops/log_softmax.h>
#include <ATen/ops/softmax.h>

#include "run/op.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;
using Function = at::Tensor (*)(const at::Tensor&, std::int64_t, std::optional<at::ScalarType>);

/// Up to opset 12 the tensor is seen as a matrix: rows before `axis`, one distribution over everything after it.
Results apply(const RunView& v, Function function) {
  const at::Tensor& x = v.in(0);
  if (x.dim() == 0 || (v.opset() < 13 && x.dim() == 1 && v.node.integer("axis", 1) == 1))  // each element is a row
    return {function(x.unsqueeze(-1), -1, std::nullopt).squeeze(-1)};
  if (v.opset() >= 13) return {function(x, v.axis("axis", -1, x.dim()), std::nullopt)};
  const std::int64_t axis = v.axis("axis", 1, x.dim());
  return {function(x.flatten(axis), axis, std::nullopt).reshape(x.sizes())};
}

Results softmax(const RunView& v) {
  return apply(v, [](const at::Tensor& x, std::int64_t d, std::optional<at::ScalarType> t) { return at::softmax(x, d, t); });
}
Results log_softmax(const RunView& v) {
  return apply(v, [](const at::Tensor& x, std::int64_t d, std::optional<at::ScalarType> t) { return at::log_softmax(x, d, t); });
}

const RegisterRun entries[] = {{"", "Softmax", softmax}, {"", "LogSoftmax", log_softmax}};

}  // namespace
}  // namespace espalier
