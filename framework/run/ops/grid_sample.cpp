#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/floor.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/remainder.h>
#include <ATen/ops/round.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <fmt/format.h>

#include "run/op.h"
#include "run/ops/sampling.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;
using Mode = Sampling::Mode;
using Outside = Sampling::Outside;

/// One element that takes part: its number along the axis (or in the whole grid) and its weight, for every point.
struct Tap {
  at::Tensor index, weight;
};

/// Thrown back and forth between two mirrors.
at::Tensor reflected(const at::Tensor& place, double low, double high) {
  const double range = high - low;
  if (range <= 0) return at::full_like(place, low);
  const at::Tensor way = at::remainder(place - low, 2 * range);
  return at::where(way.gt(range), 2 * range - way, way) + low;
}

/// Cubic convolution (Keys, 1981) with a = -0.75, of the neighbours at distances 1 + t, t, 1 - t and 2 - t.
std::vector<at::Tensor> cubic_weights(const at::Tensor& t) {
  constexpr double a = -0.75;
  const auto near = [](const at::Tensor& d) { return ((a + 2) * d - (a + 3)) * d * d + 1; };
  const auto far = [](const at::Tensor& d) { return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a; };
  return {far(t + 1), near(t), near(1 - t), far(2 - t)};
}

/// An element that lies outside counts as zero, or another stands in for it.
Tap inside(const at::Tensor& position, const at::Tensor& weight, std::int64_t length, double low, double high, Outside outside) {
  const auto last = static_cast<double>(length - 1);
  at::Tensor place = position.detach(), share = weight;
  if (outside == Outside::zeros) share = weight * place.ge(0).logical_and(place.le(last)).to(weight.scalar_type());
  if (outside == Outside::reflection) place = at::round(reflected(place, low, high));
  return {at::clamp(at::nan_to_num(place), 0, last).to(at::kLong), share};
}

std::vector<Tap> taps(at::Tensor place, std::int64_t length, const Sampling& how) {
  const double low = how.corners ? 0 : -0.5, high = static_cast<double>(length - 1) - low;
  if (how.mode == Mode::nearest) place = at::round(place);  // halves to even
  const at::Tensor out = place.lt(low).logical_or(place.gt(high));
  if (how.outside == Outside::border) place = at::where(out, at::clamp(place, 0, static_cast<double>(length - 1)), place);
  if (how.outside == Outside::reflection) place = at::where(out, reflected(place, low, high), place);
  const at::Tensor base = (how.mode == Mode::nearest ? at::round(place) : at::floor(place)).detach(), t = place - base;
  std::vector<at::Tensor> weights;
  if (how.mode == Mode::nearest) weights = {t + 1};
  if (how.mode == Mode::linear) weights = {1 - t, t};
  if (how.mode == Mode::cubic) weights = cubic_weights(t);
  std::vector<Tap> result;
  double offset = how.mode == Mode::cubic ? -1 : 0;
  for (const at::Tensor& weight : weights) result.push_back(inside(base + offset++, weight, length, low, high, how.outside));
  return result;
}

}  // namespace

at::Tensor sample(const at::Tensor& x, const std::vector<at::Tensor>& places, const Sampling& how) {
  std::vector<Tap> all{{}};
  for (std::size_t i = 0; i < places.size(); ++i) {
    const std::int64_t length = x.size(static_cast<std::int64_t>(i) + 2);
    const std::vector<Tap> along = taps(places[i], length, how);
    std::vector<Tap> product;
    for (const Tap& outer : all)
      for (const Tap& inner : along)
        product.push_back(outer.index.defined() ? Tap{outer.index * length + inner.index, outer.weight * inner.weight} : inner);
    all = std::move(product);
  }
  const at::Tensor flat = x.flatten(2);
  at::Tensor sum;
  for (const Tap& tap : all) {
    const at::Tensor index = tap.index.unsqueeze(1).expand({-1, x.size(1), -1});
    const at::Tensor part = at::gather(flat, 2, index) * tap.weight.unsqueeze(1);
    sum = sum.defined() ? sum + part : part;
  }
  return sum;
}

namespace {

Sampling sampling(const RunView& v) {
  Sampling how;
  const std::string mode = v.node.text("mode", "linear"), outside = v.node.text("padding_mode", "zeros");
  if (mode == "nearest") {
    how.mode = Mode::nearest;
  } else if (mode == "cubic" || mode == "bicubic") {
    how.mode = Mode::cubic;
  } else if (mode != "linear" && mode != "bilinear") {
    v.fail(fmt::format("mode = \"{}\" is unknown", mode));
  }
  if (outside == "border") {
    how.outside = Outside::border;
  } else if (outside == "reflection") {
    how.outside = Outside::reflection;
  } else if (outside != "zeros") {
    v.fail(fmt::format("padding_mode = \"{}\" is unknown", outside));
  }
  how.corners = v.node.integer("align_corners", 0) != 0;
  return how;
}

/// The grid's coordinates reach from -1 to 1 and begin with the innermost axis.
Results grid_sample(const RunView& v) {
  const at::Tensor &x = v.in(0), &grid = v.in(1);
  const std::int64_t axes = x.dim() - 2;
  if (axes < 1 || grid.dim() != x.dim() || grid.size(0) != x.size(0) || grid.size(-1) != axes)
    v.fail("the grid does not fit the input");
  if (axes > 3) v.refuse(fmt::format("{} spatial axes are not supported", axes));
  const bool whole = !x.is_floating_point();
  if (whole && (x.is_complex() || x.element_size() > 4 || x.scalar_type() == at::kBool))
    v.refuse(fmt::format("an input of {} is not supported", c10::toString(x.scalar_type())));
  const Sampling how = sampling(v);
  std::vector<at::Tensor> places;
  for (std::int64_t i = 0; i < axes; ++i) {
    const std::int64_t length = x.size(i + 2);
    if (length < 1) v.fail("a spatial axis of the input is empty");
    const at::Tensor g = grid.select(-1, axes - 1 - i).flatten(1) + 1;
    places.push_back(how.corners ? g * (static_cast<double>(length - 1) / 2) : (g * static_cast<double>(length) - 1) / 2);
  }
  std::vector<std::int64_t> shape{x.size(0), x.size(1)};
  for (std::int64_t i = 1; i <= axes; ++i) shape.push_back(grid.size(i));
  const at::Tensor y = sample(whole ? x.to(at::kDouble) : x, places, how).reshape(shape);
  return {whole ? y.to(at::kLong).to(x.scalar_type()) : y};
}

/// theta · (innermost coordinate, …, outermost, 1) for every element of a picture.
Results affine_grid(const RunView& v) {
  const at::Tensor& theta = v.in(0);
  const std::vector<std::int64_t> size = v.integers(1);
  const std::size_t axes = size.size() < 2 ? 0 : size.size() - 2;
  if ((axes != 2 && axes != 3) || theta.dim() != 3 || theta.size(1) != static_cast<std::int64_t>(axes) ||
      theta.size(2) != theta.size(1) + 1 || theta.size(0) != size[0])
    v.fail("theta and the size do not go together");
  const bool corners = v.node.integer("align_corners", 0) != 0;
  const std::vector<std::int64_t> lengths(size.begin() + 2, size.end());
  std::vector<at::Tensor> coordinates{at::ones(lengths, theta.options().requires_grad(false))};
  for (std::size_t i = 0; i < axes; ++i) {
    const std::int64_t length = lengths[i];
    if (length < 1) v.fail(fmt::format("the size holds {}", length));
    if (corners && length == 1) v.refuse("align_corners with an axis of length 1 is not supported");
    const auto options = theta.options().requires_grad(false);
    const at::Tensor line =
        corners ? at::linspace(-1, 1, length, options) : (at::arange(length, options) * 2 + 1) / static_cast<double>(length) - 1;
    std::vector<std::int64_t> shape(axes, 1);
    shape[i] = length;
    coordinates.insert(coordinates.begin(), line.reshape(shape).expand(lengths));
  }
  const at::Tensor points = at::stack(coordinates, -1).reshape({-1, theta.size(2)});
  std::vector<std::int64_t> shape{theta.size(0)};
  shape.insert(shape.end(), lengths.begin(), lengths.end());
  shape.push_back(theta.size(1));
  return {at::matmul(points, theta.transpose(1, 2)).reshape(shape)};
}

const RegisterRun entries[] = {{"", "GridSample", grid_sample}, {"", "AffineGrid", affine_grid}};

}  // namespace
}  // namespace espalier
