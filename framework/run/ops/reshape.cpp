#include <ATen/ops/reshape.h>
#include <fmt/format.h>

#include <algorithm>

#include "run/op.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;

/// 0 copies the input's dimension (unless `allowzero`), -1 takes what is left.
Results reshape(const RunView& v) {
  const at::Tensor& x = v.in(0);
  std::vector<std::int64_t> shape = v.node.has("shape") ? v.node.integers("shape", {}) : v.integers(1);
  if (v.node.integer("allowzero", 0) == 0)
    for (std::size_t i = 0; i < shape.size(); ++i)
      if (shape[i] == 0) {
        if (static_cast<std::int64_t>(i) >= x.dim())
          v.fail(fmt::format("dimension {} is copied from an input of rank {}", i, x.dim()));
        shape[i] = x.size(static_cast<std::int64_t>(i));
      }
  // An empty tensor leaves LibTorch without a quotient for -1; the other dimensions decide alone.
  const auto open = std::find(shape.begin(), shape.end(), -1);
  if (x.numel() == 0 && open != shape.end()) *open = 0;
  return {at::reshape(x, shape)};
}

Results flatten(const RunView& v) {
  const at::Tensor& x = v.in(0);
  std::int64_t axis = v.node.integer("axis", 1);
  if (axis < -x.dim() || axis > x.dim()) v.fail(fmt::format("axis {} is outside a tensor of rank {}", axis, x.dim()));
  if (axis < 0) axis += x.dim();
  std::int64_t rows = 1, columns = 1;
  for (std::int64_t i = 0; i < x.dim(); ++i) (i < axis ? rows : columns) *= x.size(i);
  return {at::reshape(x, {rows, columns})};
}

/// Axes as attribute (opset 12 and older) or as input; nothing when neither is there.
std::optional<std::vector<std::int64_t>> axes_of(const RunView& v) {
  if (v.node.has("axes")) return v.node.integers("axes", {});
  if (v.has(1)) return v.integers(1);
  return {};
}

Results squeeze(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const auto axes = axes_of(v);
  if (!axes) return {x.squeeze()};
  std::vector<std::int64_t> list = v.wrap(*axes, x.dim());
  for (std::int64_t axis : list)
    if (x.size(axis) != 1) v.fail(fmt::format("axis {} has length {}, only 1 can be squeezed", axis, x.size(axis)));
  return {x.squeeze(list)};
}

Results unsqueeze(const RunView& v) {
  const auto axes = axes_of(v);
  if (!axes) v.fail("axes are missing");
  at::Tensor x = v.in(0);
  std::vector<std::int64_t> list = v.wrap(*axes, x.dim() + static_cast<std::int64_t>(axes->size()));
  std::sort(list.begin(), list.end());
  for (std::int64_t axis : list) x = x.unsqueeze(axis);
  return {x};
}

const RegisterRun entries[] = {
    {"", "Reshape", reshape}, {"", "Flatten", flatten}, {"", "Squeeze", squeeze}, {"", "Unsqueeze", unsqueeze}};

}  // namespace
}  // namespace espalier
