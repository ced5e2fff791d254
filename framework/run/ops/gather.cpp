#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/index_select.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "run/op.h"
#include "run/ops/indices.h"
#include "run/ops/unsigned.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;
using Lengths = std::vector<std::int64_t>;

std::int64_t product(at::IntArrayRef lengths) {
  return std::accumulate(lengths.begin(), lengths.end(), std::int64_t{1}, std::multiplies<>());
}

Results gather(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const std::int64_t axis = v.axis("axis", 0, x.dim());
  const at::Tensor indices = from_front(v, v.in(1), x.size(axis));
  Lengths shape(x.sizes().begin(), x.sizes().begin() + axis);
  shape.insert(shape.end(), indices.sizes().begin(), indices.sizes().end());
  shape.insert(shape.end(), x.sizes().begin() + axis + 1, x.sizes().end());
  return {narrowed(at::index_select(as_signed(x), axis, indices.reshape({-1})), x.scalar_type()).reshape(shape)};
}

Results gather_elements(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const std::int64_t axis = v.axis("axis", 0, x.dim());
  if (v.in(1).dim() != x.dim()) v.fail("data and indices differ in rank");
  return {narrowed(at::gather(as_signed(x), axis, from_front(v, v.in(1), x.size(axis))), x.scalar_type())};
}

/// The batch and the axes that an index names become one axis of rows.
Results gather_nd(const RunView& v) {
  const at::Tensor &x = v.in(0), &indices = v.in(1);
  const std::int64_t batch = v.node.integer("batch_dims", 0);
  if (x.dim() < 1 || indices.dim() < 1 || batch < 0 || batch >= std::min(x.dim(), indices.dim()))
    v.fail(fmt::format("batch_dims is {} for ranks {} and {}", batch, x.dim(), indices.dim()));
  const auto shared = static_cast<std::size_t>(batch), depth = static_cast<std::size_t>(indices.size(-1));
  const auto rank = static_cast<std::size_t>(x.dim());
  if (depth < 1 || depth > rank - shared) v.fail(fmt::format("indices name {} axes of a tensor of rank {}", depth, x.dim()));
  if (x.sizes().slice(0, shared) != indices.sizes().slice(0, shared)) v.fail("the batch axes of data and indices differ");
  const std::int64_t batches = product(x.sizes().slice(0, shared)), rows = product(x.sizes().slice(shared, depth));
  const at::IntArrayRef row = x.sizes().slice(shared + depth);
  at::Tensor places = flat_places(v, indices, x.sizes().slice(shared, depth));
  Lengths shape(places.sizes().begin(), places.sizes().end()), table{batches * rows};
  if (places.numel() > 0) places = places.reshape({batches, -1}) + (at::arange(batches, at::kLong) * rows).unsqueeze(1);
  shape.insert(shape.end(), row.begin(), row.end());
  table.insert(table.end(), row.begin(), row.end());
  const at::Tensor found = at::index_select(as_signed(x).reshape(table), 0, places.reshape({-1}));
  return {narrowed(found, x.scalar_type()).reshape(shape)};
}

Results features(const RunView& v) {
  const at::Tensor& x = v.in(0);
  if (x.dim() < 1) v.fail("a scalar has no columns");
  if (!c10::isIntegralType(v.in(1).scalar_type(), false)) v.fail("indices are not integers");
  const at::Tensor rows = x.dim() == 1 ? x.unsqueeze(0) : x;
  return {at::index_select(rows, -1, v.in(1).to(at::kLong).reshape({-1}))};
}

const RegisterRun entries[] = {{"", "Gather", gather},
                               {"", "GatherElements", gather_elements},
                               {"", "GatherND", gather_nd},
                               {"ai.onnx.ml", "ArrayFeatureExtractor", features}};

}  // namespace
}  // namespace espalier
