#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/remainder.h>
#include <ATen/ops/scatter.h>
#include <ATen/ops/scatter_add.h>
#include <ATen/ops/scatter_reduce.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <functional>
#include <numeric>

#include "run/op.h"
#include "run/ops/indices.h"
#include "run/ops/unsigned.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;
using Lengths = std::vector<std::int64_t>;

/// Data with updates written in along `axis`; what several of them do to one element, `reduction` says.
at::Tensor written(const RunView& v, const at::Tensor& data, std::int64_t axis, const at::Tensor& indices,
                   const at::Tensor& updates) {
  const std::string how = v.node.text("reduction", "none");
  const c10::ScalarType type = data.scalar_type();
  if (updates.scalar_type() != type) v.fail("data and updates are of different types");
  if (how == "none") return narrowed(at::scatter(as_signed(data), axis, indices, as_signed(updates)), type);
  if (how == "add") return narrowed(at::scatter_add(widened(data), axis, indices, widened(updates)), type);
  if (how == "mul") return narrowed(at::scatter_reduce(widened(data), axis, indices, widened(updates), "prod"), type);
  if (how != "max" && how != "min") v.fail(fmt::format("reduction is \"{}\"", how));
  return from_ordered(at::scatter_reduce(ordered(data), axis, indices, ordered(updates), how == "max" ? "amax" : "amin"), type);
}

Results scatter_elements(const RunView& v) {
  const at::Tensor &x = v.in(0), &indices = v.in(1), &updates = v.in(2);
  const std::int64_t axis = v.axis("axis", 0, x.dim());
  if (indices.dim() != x.dim() || indices.sizes() != updates.sizes()) v.fail("data, indices and updates do not fit");
  return {written(v, x, axis, from_front(v, indices, x.size(axis)), updates)};
}

/// The axes that an index names become one axis of rows.
Results scatter_nd(const RunView& v) {
  const at::Tensor &x = v.in(0), &indices = v.in(1), &updates = v.in(2);
  if (x.dim() < 1 || indices.dim() < 1) v.fail("a scalar has nothing to write to");
  const auto depth = static_cast<std::size_t>(indices.size(-1));
  if (depth < 1 || depth > static_cast<std::size_t>(x.dim()))
    v.fail(fmt::format("indices name {} axes of a tensor of rank {}", depth, x.dim()));
  const at::IntArrayRef row = x.sizes().slice(depth);
  const auto places = flat_places(v, indices, x.sizes().slice(0, depth)).reshape({-1});
  Lengths wanted(indices.sizes().begin(), indices.sizes().end() - 1);
  wanted.insert(wanted.end(), row.begin(), row.end());
  if (updates.sizes() != at::IntArrayRef(wanted)) v.fail("the updates do not have the shape that indices and data ask for");
  const auto width = std::accumulate(row.begin(), row.end(), std::int64_t{1}, std::multiplies<>());
  if (updates.numel() == 0) return {x};
  const at::Tensor flat = x.reshape({x.numel() / width, width}), lines = updates.reshape({places.numel(), width});
  return {written(v, flat, 0, places.unsqueeze(1).expand(lines.sizes()), lines).reshape(x.sizes())};
}

/// New keys or values of each sample written into its cache from `write_indices` on; `circular` wraps around.
Results tensor_scatter(const RunView& v) {
  const at::Tensor &past = v.in(0), &update = v.in(1);
  const std::int64_t axis = v.axis("axis", -2, past.dim());
  if (axis == 0) v.fail("axis 0 is the batch");
  if (update.dim() != past.dim()) v.fail("cache and update differ in rank");
  for (std::int64_t i = 0; i < past.dim(); ++i)
    if (i == axis ? update.size(i) > past.size(i) : update.size(i) != past.size(i))
      v.fail(fmt::format("axis {} of an update has length {}, of the cache {}", i, update.size(i), past.size(i)));
  const std::int64_t batch = past.size(0), room = past.size(axis), length = update.size(axis);
  const at::Tensor begin = v.has(2) ? v.in(2).to(at::kLong) : at::zeros({batch}, at::kLong);
  if (begin.dim() != 1 || begin.size(0) != batch) v.fail("write_indices does not name one place for each sample");
  if (update.numel() == 0) return {past};
  at::Tensor places = begin.unsqueeze(1) + at::arange(length, at::kLong);
  if (v.node.text("mode", "linear") == "circular")
    places = at::remainder(places, room);
  else if (places.lt(0).logical_or(places.ge(room)).any().item<bool>())
    v.fail(fmt::format("an update reaches outside a cache of length {}", room));
  Lengths shape(static_cast<std::size_t>(past.dim()), 1);
  shape[0] = batch;
  shape[static_cast<std::size_t>(axis)] = length;
  const at::Tensor indices = places.reshape(shape).expand(update.sizes());
  return {narrowed(at::scatter(as_signed(past), axis, indices, as_signed(update)), past.scalar_type())};
}

const RegisterRun entries[] = {{"", "Scatter", scatter_elements},
                               {"", "ScatterElements", scatter_elements},
                               {"", "ScatterND", scatter_nd},
                               {"", "TensorScatter", tensor_scatter}};

}  // namespace
}  // namespace espalier
