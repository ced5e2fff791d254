#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "run/op.h"
#include "run/tensor.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;

Results shape(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const auto clamp = [&](std::int64_t i) { return std::clamp<std::int64_t>(i < 0 ? i + x.dim() : i, 0, x.dim()); };
  const std::int64_t start = clamp(v.node.integer("start", 0)), end = clamp(v.node.integer("end", x.dim()));
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = start; i < end; ++i) lengths.push_back(x.size(i));
  return {at::tensor(lengths, at::kLong)};
}

Results size(const RunView& v) { return {at::scalar_tensor(v.in(0).numel(), at::kLong)}; }

Results constant_of_shape(const RunView& v) {
  const std::vector<std::int64_t> lengths = v.integers(0);
  for (std::int64_t length : lengths)
    if (length < 0) v.fail(fmt::format("a shape with the negative length {}", length));
  if (!v.node.has("value")) return {at::full(lengths, 0.0, at::TensorOptions().dtype(v.compute))};
  const auto* value = std::get_if<Tensor>(&v.node.attributes.at("value"));
  if (!value || value->count() != 1) v.fail("attribute `value` is not a tensor of one element");
  const at::Tensor one = to_aten(*value).reshape({});
  return {(is_floating(value->dtype) ? one.to(v.compute) : one).expand(lengths).contiguous()};
}

Results range(const RunView& v) {
  const at::Tensor &start = v.in(0), &limit = v.in(1), &delta = v.in(2);
  for (const at::Tensor* t : {&start, &limit, &delta})
    if (t->numel() != 1) v.fail("start, limit and delta are scalars");
  const auto options = at::TensorOptions().dtype(start.scalar_type());
  if (start.is_floating_point()) {
    constexpr double most = 1e15;
    const double from = start.item<double>(), to = limit.item<double>(), step = delta.item<double>();
    if (step == 0 || !(std::fabs((to - from) / step) < most)) v.fail("delta is zero or the range has no end");
    const auto count = static_cast<std::int64_t>(std::max(std::ceil((to - from) / step), 0.0));
    return {(at::arange(count, at::kDouble) * step + from).to(start.scalar_type())};
  }
  if (delta.item<std::int64_t>() == 0) v.fail("delta is zero");
  const std::int64_t from = start.item<std::int64_t>(), to = limit.item<std::int64_t>(), step = delta.item<std::int64_t>();
  if (step > 0 ? from >= to : from <= to) return {at::arange(0, options)};
  return {at::arange(from, to, step, options)};
}

/// Both sides broadcast: a 1 in the wanted shape keeps the input's length.
Results expand(const RunView& v) {
  const at::Tensor& x = v.in(0);
  std::vector<std::int64_t> shape = v.integers(1);
  if (static_cast<std::int64_t>(shape.size()) < x.dim())
    shape.insert(shape.begin(), static_cast<std::size_t>(x.dim()) - shape.size(), 1);
  const auto lead = static_cast<std::int64_t>(shape.size()) - x.dim();
  for (std::int64_t length : shape)
    if (length < 0) v.fail(fmt::format("a shape with the negative length {}", length));
  for (std::int64_t i = 0; i < x.dim(); ++i)
    if (auto& length = shape[static_cast<std::size_t>(lead + i)]; length == 1) length = x.size(i);
  return {x.expand(shape)};
}

const RegisterRun entries[] = {{"", "Shape", shape},
                               {"", "Size", size},
                               {"", "ConstantOfShape", constant_of_shape},
                               {"", "Range", range},
                               {"", "Expand", expand}};

}  // namespace
}  // namespace espalier
