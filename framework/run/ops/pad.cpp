#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/full.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/remainder.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "run/op.h"
#include "run/ops/unsigned.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;
using Lengths = std::vector<std::int64_t>;

constexpr std::int64_t kFar = std::int64_t{1} << 40;  // longer borders are no borders

/// x without what negative borders take.
at::Tensor cropped(const RunView& v, const at::Tensor& x, std::int64_t axis, std::int64_t begin, std::int64_t end) {
  const std::int64_t first = std::max<std::int64_t>(-begin, 0), last = std::max<std::int64_t>(-end, 0);
  if (first + last > x.size(axis))
    v.refuse(fmt::format("pads of {} and {} take more than axis {} of length {} has", begin, end, axis, x.size(axis)));
  return first + last == 0 ? x : x.narrow(axis, first, x.size(axis) - first - last);
}

/// Borders of one value.
at::Tensor framed(const RunView& v, const at::Tensor& x, std::int64_t axis, std::int64_t begin, std::int64_t end,
                  const at::Tensor& value) {
  std::vector<at::Tensor> parts;
  Lengths shape(x.sizes().begin(), x.sizes().end());
  const auto border = [&](std::int64_t length) {
    if (length <= 0) return;
    shape[static_cast<std::size_t>(axis)] = length;
    parts.push_back(value.expand(shape));
  };
  border(begin);
  parts.push_back(cropped(v, x, axis, begin, end));
  border(end);
  return parts.size() == 1 ? parts[0] : at::cat(parts, axis);
}

/// Borders made of the axis' own elements.
at::Tensor continued(const RunView& v, const at::Tensor& x, std::int64_t axis, std::int64_t begin, std::int64_t end,
                     const std::string& mode) {
  if (begin <= 0 && end <= 0) return cropped(v, x, axis, begin, end);
  if (begin < 0 || end < 0) v.refuse(fmt::format("mode {} with pads of both signs along one axis is not supported", mode));
  const std::int64_t n = x.size(axis);
  if (n == 0) v.fail(fmt::format("axis {} has no elements to pad with", axis));
  at::Tensor from = at::arange(-begin, n + end, at::kLong);
  if (mode == "edge" || n == 1) {
    from = at::clamp(from, 0, n - 1);
  } else if (mode == "wrap") {
    from = at::remainder(from, n);
  } else {
    const std::int64_t period = 2 * (n - 1);  // there and back, neither end twice
    from = at::remainder(from, period);
    from = at::where(from.ge(n), period - from, from);
  }
  return at::index_select(x, axis, from);
}

at::Tensor filling(const RunView& v, const at::Tensor& x) {
  if (v.has(2)) {
    if (v.in(2).numel() != 1) v.fail(fmt::format("the padding value has {} elements, expected one", v.in(2).numel()));
    if (x.is_floating_point()) return v.in(2).to(x.scalar_type()).reshape({});  // products in a narrower type leave it so
    if (v.in(2).scalar_type() != x.scalar_type()) v.fail("data and padding value are of different types");
    return as_signed(v.in(2)).reshape({});
  }
  const auto options = as_signed(x).options();
  const double number = v.node.number("value", 0);
  if (number == 0) return at::zeros({}, options);
  if (!x.is_floating_point()) v.fail("only floating values are padded with an attribute");
  return at::full({}, number, options);
}

Results pad(const RunView& v) {
  at::Tensor x = as_signed(v.in(0));
  const std::string mode = v.node.text("mode", "constant");
  if (mode != "constant" && mode != "reflect" && mode != "edge" && mode != "wrap") v.fail(fmt::format("mode is \"{}\"", mode));
  const char* attribute = v.node.has("paddings") ? "paddings" : "pads";
  const Lengths pads = v.node.has(attribute) ? v.node.integers(attribute, {}) : v.integers(1);
  Lengths axes(static_cast<std::size_t>(x.dim()));
  std::iota(axes.begin(), axes.end(), 0);
  if (v.has(3)) axes = v.wrap(v.integers(3), x.dim());
  if (pads.size() != 2 * axes.size()) v.fail(fmt::format("{} pads for {} axes", pads.size(), axes.size()));
  const at::Tensor value = mode == "constant" ? filling(v, v.in(0)) : at::Tensor();
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const std::int64_t begin = pads[i], end = pads[i + axes.size()];
    if (std::max(begin, end) > kFar || std::min(begin, end) < -kFar) v.fail(fmt::format("pads of {} and {}", begin, end));
    x = mode == "constant" ? framed(v, x, axes[i], begin, end, value) : continued(v, x, axes[i], begin, end, mode);
  }
  return {narrowed(x, v.in(0).scalar_type())};
}

/// Half of what is too much goes at the front, half of what is missing comes there, rounded down.
Results center_crop_pad(const RunView& v) {
  at::Tensor x = as_signed(v.in(0));
  Lengths axes(static_cast<std::size_t>(x.dim()));
  std::iota(axes.begin(), axes.end(), 0);
  axes = v.wrap(v.node.integers("axes", axes), x.dim());
  const Lengths shape = v.integers(1);
  if (shape.size() != axes.size()) v.fail(fmt::format("{} lengths for {} axes", shape.size(), axes.size()));
  const at::Tensor zero = at::zeros({}, x.options());
  for (std::size_t i = 0; i < axes.size(); ++i) {
    if (shape[i] < 0 || shape[i] > kFar) v.fail(fmt::format("a length of {}", shape[i]));
    const std::int64_t missing = shape[i] - x.size(axes[i]), begin = missing / 2;  // towards zero on both sides
    x = framed(v, x, axes[i], begin, missing - begin, zero);
  }
  return {narrowed(x, v.in(0).scalar_type())};
}

const RegisterRun entries[] = {{"", "Pad", pad}, {"", "CenterCropPad", center_crop_pad}};

}  // namespace
}  // namespace espalier
