/// Values with a border or without one: Pad, CenterCropPad.
#include <algorithm>

#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

constexpr std::int64_t kFar = std::int64_t{1} << 40;  // longer borders are no borders

/// Elements that come before and after along one axis; negative ones go.
struct Border {
  std::int64_t begin = 0, end = 0;
};

/// By axis; nothing where only running tells. Attribute `paddings` (opset 1) or `pads`, or inputs 1 and, from opset 18, axes 3.
std::vector<std::optional<Border>> borders(const NodeView& view) {
  const std::size_t rank = view.in(0).shape.size();
  const IntegerList pads = integer_list(view, view.node.has("paddings") ? "paddings" : "pads", 1),
                    axes = integer_list(view, "axes", 3);
  if (!pads.given) view.fail("pads are missing");
  std::vector<std::optional<Border>> out(rank, axes.given && axes.values ? std::optional(Border{}) : std::nullopt);
  if (axes.given && !axes.values) return out;
  Integers list(rank);
  for (std::size_t i = 0; i < rank; ++i) list[i] = static_cast<std::int64_t>(i);
  if (axes.values) list = *axes.values;
  normalized(view, list, rank);
  if (pads.count && *pads.count != 2 * list.size())
    view.fail(std::to_string(*pads.count) + " pads for " + std::to_string(list.size()) + " axes");
  for (std::size_t i = 0; i < list.size(); ++i) {
    auto& border = out[static_cast<std::size_t>(list[i] < 0 ? list[i] + static_cast<std::int64_t>(rank) : list[i])];
    border.reset();
    if (!pads.values) continue;
    border = Border{(*pads.values)[i], (*pads.values)[i + list.size()]};
    for (std::int64_t n : {border->begin, border->end})
      if (n > kFar || n < -kFar) view.fail("a pad of " + std::to_string(n));
  }
  return out;
}

std::vector<ValueInfo> infer_pad(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  const std::string mode = view.node.text("mode", "constant");
  if (mode != "constant" && mode != "reflect" && mode != "edge" && mode != "wrap") view.fail("mode is '" + mode + "'");
  if (view.has(2)) {
    same_types(view, {0, 2});
    if (const auto n = element_count(view.in(2).shape); n && *n != 1)
      view.fail("the padding value has shape " + text(view.in(2).shape) + ", one element is needed");
  }
  Shape out = x.shape;
  const auto all = borders(view);
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = all[i] ? out[i] + all[i]->begin + all[i]->end : opaque(view, 0, i);
    if (out[i].known() && out[i].constant() < 0) view.fail("pads take more than all of axis " + std::to_string(i));
  }
  return {value(x.dtype, std::move(out))};
}

bool pads_with_zero(const NodeView& view) {
  if (view.node.text("mode", "constant") != "constant" || view.node.number("value", 0) != 0) return false;
  if (!view.has(2)) return true;
  const Tensor* constant = view.constant(2);
  return constant && is_floating(constant->dtype) && bits(constant->dtype) >= 16 && constant->count() == 1 &&
         constant->numbers()[0] == 0;
}

/// What stands between the borders keeps its place. A border of zeros is as good as a masked channel: it may go too.
void axes_pad(const NodeView& view, AxisMaps& maps) {
  const Shape& in = view.in(0).shape;
  const auto all = borders(view);
  for (std::size_t slot = 1; slot < view.node.inputs.size(); ++slot) pin_input(view, maps, slot, "a border");
  for (std::size_t i = 0; i < in.size(); ++i) {
    const auto a = AxisMaps::in(0, i), b = AxisMaps::out(0, i);
    if (all[i] && all[i]->begin == 0 && all[i]->end == 0) {
      maps.same(a, b);
      continue;
    }
    const std::int64_t from = all[i] ? std::max<std::int64_t>(-all[i]->begin, 0) : 0;
    const std::int64_t to = all[i] ? std::max<std::int64_t>(all[i]->begin, 0) : 0;
    const bool ends_known = all[i] && in[i].known() && pads_with_zero(view);
    const std::int64_t length = ends_known ? in[i].value() - from - std::max<std::int64_t>(-all[i]->end, 0) : 0;
    if (ends_known && length > 0) {
      maps.range(a, from, b, to, length);
    } else {
      maps.pin(a, "a border along this axis");
      maps.pin(b, "a border along this axis");
    }
  }
}

/// How many of the border's own elements are kept.
Border kept_border(const Adjust& adjust, std::size_t axis, const Border& border, std::int64_t length) {
  const auto count = [](const std::vector<std::int64_t>* kept, std::int64_t begin, std::int64_t end) {
    if (!kept) return end - begin;
    return std::lower_bound(kept->begin(), kept->end(), end) - std::lower_bound(kept->begin(), kept->end(), begin);
  };
  const auto* in = adjust.kept(adjust.node.input(0), axis);
  const auto* out = adjust.kept(adjust.node.output(0), axis);
  const std::int64_t whole = length + border.begin + border.end;
  return {border.begin < 0 ? -count(in, 0, -border.begin) : count(out, 0, border.begin),
          border.end < 0 ? -count(in, length + border.end, length) : count(out, whole - border.end, whole)};
}

void adjust_pad(Adjust& adjust) {
  const NodeView view{adjust.graph, adjust.node, adjust.before};
  const Shape& in = view.in(0).shape;
  const auto all = borders(view);
  const char* attribute = adjust.node.has("paddings") ? "paddings" : "pads";
  const IntegerList axes = integer_list(view, "axes", 3);
  Integers list(in.size());
  for (std::size_t i = 0; i < in.size(); ++i) list[i] = static_cast<std::int64_t>(i);
  if (axes.values) list = *axes.values;
  Integers pads(2 * list.size());
  bool cut = false;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const auto axis = static_cast<std::size_t>(list[i] < 0 ? list[i] + static_cast<std::int64_t>(in.size()) : list[i]);
    if (!all[axis]) return;  // pinned with its neighbours: pads are known together
    const bool plain = !in[axis].known() || (all[axis]->begin == 0 && all[axis]->end == 0);
    const Border border = plain ? *all[axis] : kept_border(adjust, axis, *all[axis], in[axis].value());
    cut = cut || border.begin != all[axis]->begin || border.end != all[axis]->end;
    pads[i] = border.begin;
    pads[i + list.size()] = border.end;
  }
  if (!cut) return;
  if (adjust.node.has(attribute))
    adjust.node.attributes[attribute] = pads;
  else
    adjust.set_constant(1, index_list(pads));
}

/// The axes that the `shape` of a CenterCropPad speaks of.
std::vector<std::size_t> centred(const NodeView& view) {
  const std::size_t rank = view.in(0).shape.size();
  Integers axes(rank);
  for (std::size_t i = 0; i < rank; ++i) axes[i] = static_cast<std::int64_t>(i);
  axes = view.node.integers("axes", axes);
  normalized(view, axes, rank);
  std::vector<std::size_t> out;
  for (std::int64_t a : axes) out.push_back(static_cast<std::size_t>(a < 0 ? a + static_cast<std::int64_t>(rank) : a));
  return out;
}

std::vector<ValueInfo> infer_centre(const NodeView& view) {
  const ValueInfo &x = view.in(0), &wanted = view.in(1);
  const auto axes = centred(view);
  check_rank(view, 1, 1);
  check_equal(view, wanted.shape[0], static_cast<std::int64_t>(axes.size()), "the number of lengths and of axes differ");
  Shape out = x.shape;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    out[axes[i]] = wanted.content ? (*wanted.content)[i] : opaque(view, 0, axes[i]);
    if (out[axes[i]].known() && out[axes[i]].constant() < 0) view.fail("the length " + out[axes[i]].text() + " is negative");
  }
  return {value(x.dtype, std::move(out))};
}

/// Where the centre lies changes with what is left.
void axes_centre(const NodeView& view, AxisMaps& maps) {
  const auto axes = centred(view);
  pin_input(view, maps, 1, "a list of lengths");
  for (std::size_t i = 0; i < view.in(0).shape.size(); ++i) {
    if (std::find(axes.begin(), axes.end(), i) == axes.end()) {
      maps.same(AxisMaps::in(0, i), AxisMaps::out(0, i));
      continue;
    }
    maps.pin(AxisMaps::in(0, i), "cropped or padded around the centre");
    maps.pin(AxisMaps::out(0, i), "cropped or padded around the centre");
  }
}

const bool registered = [] {
  for (int since : {1, 2}) RegisterOperator({"Pad", "", since, infer_pad, axes_pad, nullptr, adjust_pad, true});
  for (int since : {11, 18}) RegisterOperator({"Pad", "", since, infer_pad, axes_pad, nullptr, adjust_pad, true, {2}});
  RegisterOperator({"CenterCropPad", "", 18, infer_centre, axes_centre, nullptr, nullptr, true});
  return true;
}();

}  // namespace
}  // namespace espalier
