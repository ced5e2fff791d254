/// Values made of lengths: Shape, Size, ConstantOfShape, Range, Expand.
#include <algorithm>
#include <cmath>

#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

constexpr std::int64_t kMostContent = 256;

/// The axes that a Shape node reports (attributes start and end, from opset 15).
std::pair<std::size_t, std::size_t> reported(const NodeView& view) {
  const auto rank = static_cast<std::int64_t>(view.in(0).shape.size());
  auto clamp = [&](std::int64_t v) { return std::clamp<std::int64_t>(v < 0 ? v + rank : v, 0, rank); };
  const std::int64_t start = clamp(view.node.integer("start", 0)), end = clamp(view.node.integer("end", rank));
  return {static_cast<std::size_t>(start), static_cast<std::size_t>(std::max(start, end))};
}

std::vector<ValueInfo> infer_shape(const NodeView& view) {
  const auto [start, end] = reported(view);
  const Shape& x = view.in(0).shape;
  std::vector<Dim> content(x.begin() + static_cast<std::ptrdiff_t>(start), x.begin() + static_cast<std::ptrdiff_t>(end));
  const auto n = static_cast<std::int64_t>(content.size());
  return {value(DType::i64, {n}, std::move(content))};
}

/// Which of the reported lengths somebody uses: all of them, unless every reader picks some by constant numbers. Lengths that are
/// known and merely picked are folded into constants, which the readers' own adjust() rewrites.
std::vector<bool> used(const NodeView& view, std::size_t count) {
  std::vector<bool> out(count, false);
  const std::string& name = view.node.output(0);
  for (const Value& output : view.graph.outputs)
    if (output.name == name) return std::vector<bool>(count, true);
  for (const Node& reader : view.graph.nodes) {
    const auto slot = std::find(reader.inputs.begin(), reader.inputs.end(), name);
    if (slot == reader.inputs.end()) continue;
    const bool adjusted = slot - reader.inputs.begin() == 1 && (reader.op == "Reshape" || reader.op == "Expand");
    if (adjusted) continue;
    const NodeView other{view.graph, reader, view.values};
    std::optional<std::vector<std::int64_t>> picked;
    if (reader.op == "Gather" && slot == reader.inputs.begin()) picked = other.integers(1);
    if (!picked) return std::vector<bool>(count, true);
    for (std::int64_t i : *picked) {
      const std::int64_t at = i < 0 ? i + static_cast<std::int64_t>(count) : i;
      if (at >= 0 && at < static_cast<std::int64_t>(count)) out[static_cast<std::size_t>(at)] = true;
    }
  }
  return out;
}

void axes_shape(const NodeView& view, AxisMaps& maps) {
  const auto [start, end] = reported(view);
  pin_output(view, maps, 0, "a list of lengths");
  const auto wanted = used(view, end - start);
  for (std::size_t i = start; i < end; ++i)
    if (wanted[i - start]) maps.whole(AxisMaps::in(0, i), false, "its length is computed with");
}

std::vector<ValueInfo> infer_size(const NodeView& view) {
  Dim n(1);
  for (const Dim& d : view.in(0).shape) n = n * d;
  return {value(DType::i64, {}, std::vector<Dim>{n})};
}

void axes_size(const NodeView& view, AxisMaps& maps) {
  for (std::size_t i = 0; i < view.in(0).shape.size(); ++i) maps.whole(AxisMaps::in(0, i), false, "its length is computed with");
}

/// The lengths that input `slot` asks for, unknown ones opaque; nothing when not even their number is known.
std::optional<Shape> requested(const NodeView& view, std::size_t slot) {
  const ValueInfo& info = view.in(slot);
  check_rank(view, slot, 1);
  if (info.content) {
    for (const Dim& d : *info.content)
      if (d.known() && d.constant() < 0) view.fail("the shape " + text(*info.content) + " has a negative entry");
    return *info.content;
  }
  if (!info.shape[0].known()) return std::nullopt;
  return opaque_shape(view, static_cast<std::size_t>(info.shape[0].constant()));
}

std::vector<ValueInfo> infer_constant_of_shape(const NodeView& view) {
  DType type = DType::f32;
  std::optional<std::int64_t> fill;
  if (auto it = view.node.attributes.find("value"); it != view.node.attributes.end()) {
    const Tensor* tensor = std::get_if<Tensor>(&it->second);
    if (!tensor || tensor->count() != 1) view.fail("value is no tensor of one element");
    type = tensor->dtype;
    if (type == DType::i64 || type == DType::i32 || type == DType::boolean) fill = tensor->integers()[0];
  }
  auto shape = requested(view, 0);
  if (!shape) return {{type, {}, std::nullopt, false}};
  Content content;
  const auto n = element_count(*shape);
  if (fill && shape->size() <= 1 && n && *n <= kMostContent) content.emplace(static_cast<std::size_t>(*n), Dim(*fill));
  return {value(type, std::move(*shape), std::move(content))};
}

void axes_constant_of_shape(const NodeView& view, AxisMaps& maps) {
  pin_input(view, maps, 0, "a list of lengths");
  pin_output(view, maps, 0, "a value made from lengths");
}

/// The length of a range of floating constants.
std::optional<std::int64_t> constant_length(const NodeView& view) {
  double v[3];
  for (std::size_t i = 0; i < 3; ++i) {
    const Tensor* tensor = view.constant(i);
    if (!tensor || !is_floating(tensor->dtype) || bits(tensor->dtype) < 16) return std::nullopt;
    v[i] = tensor->numbers()[0];
  }
  const double n = std::ceil((v[1] - v[0]) / v[2]);
  if (!(std::fabs(n) < 1e15)) view.fail("a range without end");
  return n > 0 ? static_cast<std::int64_t>(n) : 0;
}

std::vector<ValueInfo> infer_range(const NodeView& view) {
  same_types(view, {0, 1, 2});
  const DType type = view.in(0).dtype;
  for (std::size_t i = 0; i < 3; ++i)
    if (const auto n = element_count(view.in(i).shape); n && *n != 1) view.fail("input " + std::to_string(i) + " is no scalar");
  if (const auto n = constant_length(view)) return {value(type, {*n})};
  const auto &start = view.in(0).content, &limit = view.in(1).content, &delta = view.in(2).content;
  if (!start || !limit || !delta || !(*delta)[0].known()) return {value(type, {opaque(view, 0, 0)})};
  const Dim step = (*delta)[0];
  if (step == Dim(0)) view.fail("a range with step 0");
  const std::int64_t s = step.constant();
  Dim n = s > 0 ? floor_div((*limit)[0] - (*start)[0] + (s - 1), s) : floor_div((*start)[0] - (*limit)[0] - (s + 1), Dim(0) - step);
  if (n.known() && n.constant() < 0) n = 0;
  Content content;
  if (n.known() && n.constant() <= kMostContent) {
    content.emplace();
    for (std::int64_t i = 0; i < n.constant(); ++i) content->push_back((*start)[0] + step * i);
  }
  return {value(type, {n}, std::move(content))};
}

void axes_range(const NodeView& view, AxisMaps& maps) {
  for (std::size_t i = 0; i < 3; ++i) pin_input(view, maps, i, "a bound of a range");
  pin_output(view, maps, 0, "a range of numbers");
}

std::vector<ValueInfo> infer_expand(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  auto shape = requested(view, 1);
  if (!shape) return {{x.dtype, {}, std::nullopt, false}};
  Shape out = broadcast(view, x.shape, *shape);
  Content content;
  if (x.content && out.size() <= 1) {
    const auto n = element_count(out);
    if (n && static_cast<std::size_t>(*n) == x.content->size())
      content = x.content;
    else if (n && *n <= kMostContent && x.content->size() == 1)
      content.emplace(static_cast<std::size_t>(*n), (*x.content)[0]);
  }
  return {value(x.dtype, std::move(out), std::move(content))};
}

/// The shape input after a cut: 1 keeps the input's own length. Nothing when a symbolic length is made by the Expand itself.
std::optional<Integers> expand_target(const Shape& in, const Shape& out) {
  Integers shape;
  for (std::size_t o = 0; o < out.size(); ++o) {
    const std::size_t missing = out.size() - in.size();
    if (o >= missing && in[o - missing] == out[o])
      shape.push_back(1);
    else if (out[o].known())
      shape.push_back(out[o].constant());
    else
      return std::nullopt;
  }
  return shape;
}

void axes_expand(const NodeView& view, AxisMaps& maps) {
  pin_input(view, maps, 1, "the shape of an Expand");
  if (expand_target(view.in(0).shape, view.out(0).shape)) {
    link_broadcast(view, maps, 0);
    return;
  }
  pin_input(view, maps, 0, "the shape of this Expand cannot be written down after a cut");
  pin_output(view, maps, 0, "the shape of this Expand cannot be written down after a cut");
}

void adjust_expand(Adjust& adjust) {
  const std::string &x = adjust.node.input(0), &y = adjust.node.output(0);
  Shape in = adjust.before.find(x)->second.shape, out = adjust.before.find(y)->second.shape;
  bool cut = false;
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = kept_length(adjust, x, i);
  for (std::size_t i = 0; i < out.size(); ++i) {
    cut = cut || adjust.kept(y, i);
    out[i] = kept_length(adjust, y, i);
  }
  if (!cut) return;
  const auto shape = expand_target(in, out);
  if (!shape)
    NodeView{adjust.graph, adjust.node, adjust.before}.fail("the shape after the cut cannot be written down: " + text(out));
  adjust.set_constant(1, index_list(*shape));
}

const RegisterOperator shape{{"Shape", "", 1, infer_shape, axes_shape, nullptr, nullptr, false}};
const RegisterOperator size{{"Size", "", 1, infer_size, axes_size, nullptr, nullptr, false}};
const RegisterOperator constant_of_shape{
    {"ConstantOfShape", "", 9, infer_constant_of_shape, axes_constant_of_shape, nullptr, nullptr, false}};
const RegisterOperator range{{"Range", "", 11, infer_range, axes_range, nullptr, nullptr, false, {0, 1, 2}}};
const RegisterOperator expand{{"Expand", "", 8, infer_expand, axes_expand, nullptr, adjust_expand, true}};

}  // namespace
}  // namespace espalier
