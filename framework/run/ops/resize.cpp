#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "run/op.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;
using Numbers = std::vector<double>;

/// What is resized along one axis: `scale` may differ from length / before where a product was rounded down.
struct Axis {
  std::int64_t before, length;
  double scale, begin = 0, end = 1;  ///< the region of interest as parts of the axis
  bool untouched() const { return before == length && scale == 1 && begin == 0 && end == 1; }
};

struct Way {
  std::string mode, nearest, transform;
  double cubic = -0.75, fill = 0;
  bool exclude = false, antialias = false;
};

/// Floating numbers as the file has them: what is bound is rounded to the computing type, and a length hangs on each bit.
Numbers numbers(const RunView& v, std::size_t slot) {
  if (const Tensor* constant = v.graph.initializer(v.node.input(slot))) return constant->numbers();
  const at::Tensor wide = v.in(slot).detach().to(at::kDouble).contiguous();
  const auto* data = wide.const_data_ptr<double>();
  return {data, data + wide.numel()};
}

Numbers scales_of(const RunView& v) {
  if (v.node.op != "Upsample") return numbers(v, v.opset() < 11 ? 1 : 2);
  if (v.opset() >= 9) return numbers(v, 1);
  if (v.opset() < 7) return {1, 1, v.node.number("height_scale", 0), v.node.number("width_scale", 0)};
  const auto found = v.node.attributes.find("scales");
  const auto* list = found == v.node.attributes.end() ? nullptr : std::get_if<Numbers>(&found->second);
  if (!list) v.fail("attribute scales is missing");
  return *list;
}

Way way_of(const RunView& v) {
  Way way;
  const bool old = v.node.op == "Upsample" || v.opset() < 11;
  way.mode = v.node.text("mode", "nearest");
  if (way.mode == "bilinear" && v.opset() < 7) way.mode = "linear";
  way.nearest = v.node.text("nearest_mode", old ? "floor" : "round_prefer_floor");
  way.transform = v.node.text("coordinate_transformation_mode", old ? "asymmetric" : "half_pixel");
  way.cubic = v.node.number("cubic_coeff_a", -0.75);
  way.fill = v.node.number("extrapolation_value", 0);
  way.exclude = v.node.integer("exclude_outside", 0) != 0;
  way.antialias = v.node.integer("antialias", 0) != 0;
  if (way.mode != "nearest" && way.mode != "linear" && way.mode != "cubic")
    v.fail(fmt::format("mode = \"{}\" is unknown", way.mode));
  for (const char* known : {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"})
    if (way.nearest == known) return way;
  v.fail(fmt::format("nearest_mode = \"{}\" is unknown", way.nearest));
}

constexpr double most = 0x1p40;  // beyond any memory, and far from overflow

/// All axes keep their proportion: the least or the greatest of the scales that `sizes` say.
void keep_proportions(const RunView& v, const std::string& policy, std::vector<Axis*>& axes) {
  const bool least = policy == "not_larger";
  if (!least && policy != "not_smaller") v.fail(fmt::format("keep_aspect_ratio_policy = \"{}\" is unknown", policy));
  double scale = axes.empty() ? 1 : axes[0]->scale;
  for (const Axis* axis : axes) scale = least ? std::min(scale, axis->scale) : std::max(scale, axis->scale);
  for (Axis* axis : axes) {
    const double length = std::floor(scale * static_cast<double>(axis->before) + 0.5);
    if (length > most) v.fail(fmt::format("an axis of length {} is not possible", length));
    axis->scale = scale;
    axis->length = static_cast<std::int64_t>(length);
  }
}

void take_scales(const RunView& v, const Numbers& scales, std::vector<Axis*>& axes) {
  if (scales.size() != axes.size()) v.fail(fmt::format("{} scales for {} axes", scales.size(), axes.size()));
  for (std::size_t i = 0; i < axes.size(); ++i) {
    axes[i]->scale = scales[i];
    // In f32, as ONNX's own inference of shapes does it.
    const float length = static_cast<float>(axes[i]->before) * static_cast<float>(scales[i]);
    if (!(scales[i] > 0) || !(length < most)) v.fail(fmt::format("the scale {} is not possible", scales[i]));
    axes[i]->length = static_cast<std::int64_t>(std::floor(length));
  }
}

void take_sizes(const RunView& v, const std::vector<std::int64_t>& sizes, std::vector<Axis*>& axes) {
  if (sizes.size() != axes.size()) v.fail(fmt::format("{} sizes for {} axes", sizes.size(), axes.size()));
  for (std::size_t i = 0; i < axes.size(); ++i) {
    if (sizes[i] < 1 || static_cast<double>(sizes[i]) > most) v.fail(fmt::format("the size {} is not possible", sizes[i]));
    axes[i]->length = sizes[i];
    axes[i]->scale = static_cast<double>(sizes[i]) / static_cast<double>(std::max<std::int64_t>(axes[i]->before, 1));
  }
  const std::string policy = v.node.text("keep_aspect_ratio_policy", "stretch");
  if (policy != "stretch") keep_proportions(v, policy, axes);
}

std::vector<Axis> axes_of(const RunView& v, const Way& way) {
  const at::Tensor& x = v.in(0);
  std::vector<Axis> all;
  for (std::int64_t length : x.sizes()) all.push_back({length, length, 1});
  std::vector<Axis*> spoken;
  if (v.node.has("axes")) {
    for (std::int64_t a : v.wrap(v.node.integers("axes", {}), x.dim())) spoken.push_back(&all[static_cast<std::size_t>(a)]);
  } else {
    for (Axis& axis : all) spoken.push_back(&axis);
  }
  const bool sized = v.node.op == "Resize" && v.opset() >= 11 && v.has(3) && v.in(3).numel() > 0;
  if (sized) {
    take_sizes(v, v.integers(3), spoken);
  } else {
    take_scales(v, scales_of(v), spoken);
  }
  if (way.transform != "tf_crop_and_resize") return all;
  const Numbers roi = numbers(v, 1);
  if (roi.size() != 2 * spoken.size()) v.fail(fmt::format("roi has {} numbers for {} axes", roi.size(), spoken.size()));
  for (std::size_t i = 0; i < spoken.size(); ++i) {
    spoken[i]->begin = roi[i];
    spoken[i]->end = roi[i + spoken.size()];
    if (!std::isfinite(roi[i]) || !std::isfinite(roi[i + spoken.size()])) v.fail("roi is not finite");
    // Whether a region shortens what a scale makes is told in two ways.
    if (!sized && (spoken[i]->begin != 0 || spoken[i]->end != 1)) v.refuse("a region of interest beside scales is not supported");
  }
  return all;
}

/// Where element i of the result lies in the input.
double origin(const RunView& v, const Way& way, const Axis& axis, std::int64_t i) {
  const auto at = static_cast<double>(i), last = static_cast<double>(axis.before - 1);
  const double width = axis.scale * static_cast<double>(axis.before);
  const std::string& mode = way.transform;
  const double half = (at + 0.5) / axis.scale - 0.5;
  if (mode == "half_pixel") return half;
  if (mode == "pytorch_half_pixel") return axis.length > 1 ? half : 0;
  if (mode == "asymmetric") return at / axis.scale;
  if (mode == "tf_half_pixel_for_nn") return (at + 0.5) / axis.scale;
  if (mode == "align_corners") return width == 1 || axis.length == 1 ? 0 : at * last / (width - 1);
  if (mode == "half_pixel_symmetric")
    return half + static_cast<double>(axis.before) / 2 * (1 - static_cast<double>(axis.length) / width);
  if (mode == "tf_crop_and_resize")
    return axis.length > 1 ? axis.begin * last + at * (axis.end - axis.begin) * last / (width - 1)
                           : 0.5 * (axis.begin + axis.end) * last;
  v.fail(fmt::format("coordinate_transformation_mode = \"{}\" is unknown", mode));
}

double nearest(const std::string& mode, double place) {
  if (mode == "floor") return std::floor(place);
  if (mode == "ceil") return std::ceil(place);
  return mode == "round_prefer_floor" ? std::ceil(place - 0.5) : std::floor(place + 0.5);
}

/// Weight of an element at this distance, in elements of the input: a triangle, or cubic convolution (Keys, 1981).
double kernel(const Way& way, double distance) {
  const double d = std::fabs(distance), a = way.cubic;
  if (way.mode == "linear") return std::max(1 - d, 0.0);
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

/// Result i is the sum over k of weight[i, k] · input[index[i, k]]; `outside` marks those that are filled.
struct Taps {
  std::int64_t count = 1;
  at::Tensor index, weight, outside;
  bool fills = false;
};

Taps taps(const RunView& v, const Way& way, const Axis& axis) {
  Taps t;
  // When it shrinks, an antialiasing kernel grows with 1 / scale, which is at most twice the axis' length here.
  const double stretch = way.antialias ? std::min(axis.scale, 1.0) : 1;
  const double reach = way.mode == "nearest" ? 0 : (way.mode == "linear" ? 1 : 2) / stretch;
  const auto first = static_cast<std::int64_t>(std::floor(-reach)) + 1;
  t.count = way.mode == "nearest" ? 1 : 2 - 2 * first;
  t.index = at::empty({t.count, axis.length}, at::kLong);
  t.weight = at::zeros({t.count, axis.length}, at::kDouble);
  t.outside = at::zeros({axis.length}, at::kBool);
  auto* index = t.index.mutable_data_ptr<std::int64_t>();
  auto* weight = t.weight.mutable_data_ptr<double>();
  auto* outside = t.outside.mutable_data_ptr<bool>();
  const auto last = static_cast<double>(axis.before - 1);
  for (std::int64_t i = 0; i < axis.length; ++i) {
    const double place = origin(v, way, axis, i);
    outside[i] = way.transform == "tf_crop_and_resize" && (place < 0 || place > last);
    t.fills = t.fills || outside[i];
    const double base = way.mode == "nearest" ? nearest(way.nearest, place) : std::floor(place);
    double sum = 0;
    for (std::int64_t k = 0; k < t.count; ++k) {
      const double element = way.mode == "nearest" ? base : base + static_cast<double>(first + k);
      const std::int64_t at = k * axis.length + i;
      index[at] = static_cast<std::int64_t>(std::clamp(element, 0.0, last));
      weight[at] = way.mode == "nearest" ? 1 : kernel(way, (element - place) * stretch);
      if (way.exclude && (element < 0 || element > last)) weight[at] = 0;
      sum += weight[at];
    }
    if (sum == 0 || !(way.exclude || way.antialias)) continue;
    for (std::int64_t k = 0; k < t.count; ++k) weight[k * axis.length + i] /= sum;
  }
  return t;
}

at::Tensor resampled(const RunView& v, const Way& way, const Axis& axis, const at::Tensor& x, std::int64_t number) {
  if (axis.before < 1) v.fail("an empty axis cannot be resized");
  std::vector<std::int64_t> shape(static_cast<std::size_t>(x.dim()), 1);
  shape[static_cast<std::size_t>(number)] = axis.length;
  const Taps t = taps(v, way, axis);
  at::Tensor sum;
  for (std::int64_t k = 0; k < t.count; ++k) {
    at::Tensor part = at::index_select(x, number, t.index.select(0, k));
    if (way.mode != "nearest") part = part * t.weight.select(0, k).to(x.scalar_type()).reshape(shape);
    sum = sum.defined() ? sum + part : part;
  }
  return t.fills ? at::where(t.outside.reshape(shape), at::zeros({}, x.options()) + way.fill, sum) : sum;
}

Results resize(const RunView& v) {
  at::Tensor x = v.in(0);
  const Way way = way_of(v);
  if (way.mode == "nearest" && way.antialias) v.fail("antialias goes with linear and cubic modes");
  if (way.mode != "nearest" && !x.is_floating_point())
    v.refuse(fmt::format("{} between elements of {} is not supported", way.mode, c10::toString(x.scalar_type())));
  const std::vector<Axis> axes = axes_of(v, way);
  for (std::size_t i = 0; i < axes.size(); ++i)
    if (!axes[i].untouched()) x = resampled(v, way, axes[i], x, static_cast<std::int64_t>(i));
  return {x};
}

const RegisterRun entries[] = {{"", "Resize", resize}, {"", "Upsample", resize}};

}  // namespace
}  // namespace espalier
