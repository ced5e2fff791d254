/// Resize and Upsample: each axis is sampled anew, one after the other. An axis that keeps its length is not touched at all.
#include <algorithm>
#include <cmath>
#include <limits>

#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

std::size_t scales_slot(const NodeView& view) { return view.node.op == "Upsample" || view.graph.opset() < 11 ? 1 : 2; }
constexpr std::size_t sizes_slot = 3, roi_slot = 1;

bool crops(const NodeView& view) { return view.node.text("coordinate_transformation_mode", "") == "tf_crop_and_resize"; }

bool empty(const NodeView& view, std::size_t slot) { return !view.has(slot) || element_count(view.in(slot).shape) == 0; }

bool by_size(const NodeView& view) { return view.node.op == "Resize" && view.graph.opset() >= 11 && !empty(view, sizes_slot); }

/// The axes that scales, sizes and roi speak of, in their order.
std::vector<std::size_t> spoken(const NodeView& view) {
  const auto rank = static_cast<std::int64_t>(view.in(0).shape.size());
  Integers axes = view.node.integers("axes", {});
  if (!view.node.has("axes"))
    for (std::int64_t i = 0; i < rank; ++i) axes.push_back(i);
  normalized(view, axes, static_cast<std::size_t>(rank));
  std::vector<std::size_t> out;
  for (std::int64_t a : axes) out.push_back(static_cast<std::size_t>(a < 0 ? a + rank : a));
  return out;
}

/// Floating numbers of an input or, in old opsets, the attribute of that name; nothing when they are not constant.
std::optional<std::vector<double>> numbers(const NodeView& view, std::size_t slot, const char* attribute) {
  if (const auto found = view.node.attributes.find(attribute); found != view.node.attributes.end())
    if (const auto* list = std::get_if<std::vector<double>>(&found->second)) return *list;
  const Tensor* tensor = view.constant(slot);
  return tensor ? std::optional(tensor->numbers()) : std::nullopt;
}

/// Upsample of opset 1 has a scale for the height and one for the width.
std::optional<std::vector<double>> scales(const NodeView& view) {
  if (view.node.op == "Upsample" && view.graph.opset() < 7) {
    check_rank(view, 0, 4);
    return std::vector<double>{1, 1, view.node.number("height_scale", 0), view.node.number("width_scale", 0)};
  }
  return numbers(view, scales_slot(view), "scales");
}

/// ⌊length · scale⌋, the product rounded to f32 as ONNX's own inference does.
Dim scaled(const NodeView& view, const Dim& length, double scale, std::size_t axis) {
  if (!(scale > 0) || !std::isfinite(scale)) view.fail("scale " + std::to_string(scale) + " is no positive number");
  if (scale == 1) return length;
  if (length.known()) {
    const float product = static_cast<float>(length.value()) * static_cast<float>(scale);
    if (!(product < 0x1p62F)) view.fail("axis " + std::to_string(axis) + " would grow beyond all bounds");
    return static_cast<std::int64_t>(std::floor(product));
  }
  if (scale == std::floor(scale) && scale < 0x1p31) return length * static_cast<std::int64_t>(scale);
  const double inverse = 1 / scale;
  if (inverse == std::floor(inverse) && inverse < 0x1p31) return floor_div(length, static_cast<std::int64_t>(inverse));
  return opaque(view, 0, axis);
}

/// Sizes of a picture that keeps its proportions: all axes spoken of by the least or the greatest of their scales.
void keep_proportions(const NodeView& view, const std::string& policy, const std::vector<std::size_t>& axes, Shape& out) {
  if (policy != "not_larger" && policy != "not_smaller") view.fail("keep_aspect_ratio_policy is '" + policy + "'");
  const Shape& x = view.in(0).shape;
  double factor = policy == "not_larger" ? std::numeric_limits<double>::infinity() : 0;
  bool known = true;
  for (std::size_t a : axes) {
    known = known && x[a].known() && out[a].known() && x[a].value() > 0;
    if (!known) break;
    const double own = static_cast<double>(out[a].value()) / static_cast<double>(x[a].value());
    factor = policy == "not_larger" ? std::min(factor, own) : std::max(factor, own);
  }
  for (std::size_t a : axes) {
    const double length = known ? std::floor(factor * static_cast<double>(x[a].value()) + 0.5) : 0;
    if (length >= 0x1p62) view.fail("axis " + std::to_string(a) + " would grow beyond all bounds");
    out[a] = known ? Dim(static_cast<std::int64_t>(length)) : opaque(view, 0, a);
  }
}

Shape resized(const NodeView& view) {
  Shape out = view.in(0).shape;
  const auto axes = spoken(view);
  const auto check_count = [&](std::size_t count, const char* what) {
    if (count != axes.size()) view.fail(std::to_string(count) + " " + what + " for " + std::to_string(axes.size()) + " axes");
  };
  if (!by_size(view)) {
    const bool attribute = view.node.op == "Upsample" && view.graph.opset() < 9;
    if (!attribute && empty(view, scales_slot(view))) view.fail("there are neither scales nor sizes");
    const auto factors = scales(view);
    if (!factors && attribute) view.fail("scales are missing");
    if (factors) check_count(factors->size(), "scales");
    for (std::size_t i = 0; i < axes.size(); ++i)
      out[axes[i]] = factors ? scaled(view, out[axes[i]], (*factors)[i], axes[i]) : opaque(view, 0, axes[i]);
    return out;
  }
  if (!empty(view, scales_slot(view))) view.fail("there are scales and sizes");
  check_rank(view, sizes_slot, 1);
  const Content& sizes = view.in(sizes_slot).content;
  if (sizes) check_count(sizes->size(), "sizes");
  for (std::size_t i = 0; i < axes.size(); ++i) {
    out[axes[i]] = sizes ? (*sizes)[i] : opaque(view, 0, axes[i]);
    if (out[axes[i]].known() && out[axes[i]].value() < 1) view.fail("an axis would have length " + out[axes[i]].text());
  }
  const std::string policy = view.node.text("keep_aspect_ratio_policy", "stretch");
  if (policy != "stretch") keep_proportions(view, policy, axes, out);
  return out;
}

std::vector<ValueInfo> infer_resize(const NodeView& view) {
  if (view.in(0).dtype == DType::string) view.refuse("texts are not resized");
  return {value(view.in(0).dtype, resized(view))};
}

/// The axis comes out as it went in. A region of interest may shift an axis that keeps its length.
bool untouched(const NodeView& view, std::size_t axis) {
  if (view.in(0).shape[axis] != view.out(0).shape[axis]) return false;
  const auto axes = spoken(view);
  const auto place = std::find(axes.begin(), axes.end(), axis);
  if (place == axes.end()) return true;
  const auto i = static_cast<std::size_t>(place - axes.begin());
  if (crops(view)) {
    const auto roi = numbers(view, roi_slot, "");
    if (!roi || roi->size() != 2 * axes.size() || (*roi)[i] != 0 || (*roi)[axes.size() + i] != 1) return false;
  }
  if (view.node.text("keep_aspect_ratio_policy", "stretch") != "stretch") return false;
  // Lengths may agree by rounding: ⌊7 · 1.1⌋ = 7, and yet every sample moves.
  if (by_size(view)) return true;
  const auto factors = scales(view);
  return factors && i < factors->size() && (*factors)[i] == 1;
}

/// k where b = k · a.
std::optional<std::int64_t> multiple(const Dim& a, const Dim& b) {
  const auto of = [](std::int64_t x, std::int64_t y) { return x > 0 && y > 0 && y % x == 0 ? y / x : 0; };
  std::int64_t k = of(a.constant(), b.constant());
  if (!a.known() && !b.known()) k = of(a.terms().begin()->second, b.terms().begin()->second);
  return k > 0 && a * k == b ? std::optional(k) : std::nullopt;
}

/// Scales that say what computed sizes say, where all of them are whole numbers.
std::optional<std::vector<float>> whole_scales(const NodeView& view) {
  std::vector<float> out;
  for (std::size_t a : spoken(view)) {
    const auto k = multiple(view.in(0).shape[a], view.out(0).shape[a]);
    if (!k || *k > (1 << 20)) return std::nullopt;
    out.push_back(static_cast<float>(*k));
  }
  return out;
}

void axes_resize(const NodeView& view, AxisMaps& maps) {
  for (std::size_t slot = 1; slot < view.node.inputs.size(); ++slot) pin_input(view, maps, slot, "sizes of a " + view.node.op);
  // Where sizes are computed, nobody knows which number among them is the length of the channels.
  const bool rewritable = !by_size(view) || view.constant(sizes_slot) || whole_scales(view);
  const bool fills = crops(view) && view.node.number("extrapolation_value", 0) != 0;
  for (std::size_t i = 0; i < view.in(0).shape.size(); ++i) {
    if (untouched(view, i) && rewritable && !fills) {
      maps.same(AxisMaps::in(0, i), AxisMaps::out(0, i));
      continue;
    }
    const std::string reason = fills        ? "what lies outside is filled in every channel"
                               : rewritable ? "axis that a " + view.node.op + " samples"
                                            : "its length is among computed sizes";
    maps.pin(AxisMaps::in(0, i), reason);
    maps.pin(AxisMaps::out(0, i), reason);
  }
}

/// Sizes speak of the channels, too.
void adjust_resize(Adjust& adjust) {
  const NodeView view{adjust.graph, adjust.node, adjust.before};
  if (!by_size(view)) return;
  Integers sizes;
  bool cut = false;
  for (std::size_t a : spoken(view)) {
    cut = cut || adjust.kept(adjust.node.output(0), a);
    sizes.push_back(kept_length(adjust, adjust.node.output(0), a).value_or(-1));
  }
  if (!cut) return;
  if (view.constant(sizes_slot)) {
    adjust.set_constant(sizes_slot, index_list(sizes));
    return;
  }
  const auto factors = whole_scales(view);
  if (!factors) view.fail("the sizes after the cut cannot be written down");
  const auto count = static_cast<std::int64_t>(factors->size());
  adjust.set_constant(scales_slot(view), Tensor::of(DType::f32, {count}, *factors));
  adjust.node.inputs.resize(sizes_slot);
}

const bool registered = [] {
  for (int since : {10, 11, 13, 18, 19})
    RegisterOperator({"Resize", "", since, infer_resize, axes_resize, nullptr, adjust_resize, true, {1, 2}});
  for (int since : {1, 7}) RegisterOperator({"Upsample", "", since, infer_resize, axes_resize, nullptr, nullptr, true});
  RegisterOperator({"Upsample", "", 9, infer_resize, axes_resize, nullptr, nullptr, true, {1}});
  return true;
}();

}  // namespace
}  // namespace espalier
