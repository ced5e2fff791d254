#include "run/ops/indices.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

namespace espalier {

at::Tensor from_front(const RunView& view, const at::Tensor& indices, std::int64_t length) {
  if (!c10::isIntegralType(indices.scalar_type(), false)) view.fail("indices are not integers");
  const at::Tensor wide = indices.to(at::kLong);
  return at::where(wide.lt(0), wide + length, wide);
}

at::Tensor flat_places(const RunView& view, const at::Tensor& indices, at::IntArrayRef lengths) {
  at::Tensor places = at::zeros(indices.sizes().slice(0, static_cast<std::size_t>(indices.dim() - 1)), at::kLong);
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    const at::Tensor each = from_front(view, indices.select(-1, static_cast<std::int64_t>(i)), lengths[i]);
    if (each.lt(0).logical_or(each.ge(lengths[i])).any().item<bool>())
      view.fail(fmt::format("an index is outside an axis of length {}", lengths[i]));
    places = places * lengths[i] + each;
  }
  return places;
}

}  // namespace espalier
