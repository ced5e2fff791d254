#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

/// Parts whose lengths only running tells.
std::vector<Dim> unknown_lengths(const NodeView& view, std::size_t axis) {
  std::vector<Dim> out;
  for (std::size_t slot = 0; slot < view.node.outputs.size(); ++slot) {
    const bool unused = view.node.outputs[slot].empty();
    out.push_back(unused ? Dim::symbol("unused_part") : opaque(view, slot, axis));
  }
  return out;
}

/// Lengths of the parts: the attribute or input `split`, else equal ones (from opset 18 with a smaller last one).
std::vector<Dim> lengths(const NodeView& view, std::size_t axis) {
  const Dim& length = view.in(0).shape[axis];
  const std::size_t n = view.node.outputs.size();
  if (n == 0) view.fail("the node has no outputs");
  if (const IntegerList given = integer_list(view, "split", 1); given.given) {
    if (given.count && *given.count != n)
      view.fail("split names " + std::to_string(*given.count) + " parts, the node has " + std::to_string(n) + " outputs");
    if (!given.values) return unknown_lengths(view, axis);
    Dim sum;
    for (std::int64_t part : *given.values) {
      if (part < 0) view.fail("a part of length " + std::to_string(part));
      sum = sum + part;
    }
    check_equal(view, sum, length, "the parts do not make up the axis");
    return {given.values->begin(), given.values->end()};
  }
  const std::int64_t count = view.node.integer("num_outputs", static_cast<std::int64_t>(n));
  if (count != static_cast<std::int64_t>(n))
    view.fail("num_outputs is " + std::to_string(count) + ", the node has " + std::to_string(n) + " outputs");
  if (!length.known()) return std::vector<Dim>(n, floor_div(length, count));
  const std::int64_t part = length.value() / count + (length.value() % count != 0 ? 1 : 0);
  if (length.value() % count != 0 && !view.node.has("num_outputs"))
    view.fail("an axis of length " + length.text() + " does not split into " + std::to_string(count) + " equal parts");
  std::vector<Dim> out(n, Dim(part));
  out.back() = length - part * (count - 1);
  if (out.back().value() < 0)
    view.refuse("an axis of length " + length.text() + " does not split into " + std::to_string(count) + " parts");
  return out;
}

std::vector<ValueInfo> infer_split(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  const std::size_t axis = view.axis("axis", 0, x.shape.size());
  std::vector<ValueInfo> out;
  std::int64_t begin = 0;
  for (const Dim& part : lengths(view, axis)) {
    Shape shape = x.shape;
    shape[axis] = part;
    Content content;
    if (x.content && x.shape.size() == 1 && part.known() && begin + part.value() <= static_cast<std::int64_t>(x.content->size()))
      content.emplace(x.content->begin() + begin, x.content->begin() + begin + part.value());
    begin += part.value_or(0);
    out.push_back(value(x.dtype, std::move(shape), std::move(content)));
  }
  return out;
}

void axes_split(const NodeView& view, AxisMaps& maps) {
  const Shape& in = view.in(0).shape;
  const std::size_t axis = view.axis("axis", 0, in.size());
  pin_input(view, maps, 1, "the lengths of a Split");
  const auto parts = lengths(view, axis);
  bool known = in[axis].known();
  for (const Dim& part : parts) known = known && part.known();
  if (!known) maps.pin(AxisMaps::in(0, axis), "split of a symbolic length");
  std::int64_t begin = 0;
  for (std::size_t slot = 0; slot < parts.size(); ++slot) {
    const bool unused = view.node.outputs[slot].empty();
    for (std::size_t i = 0; i < in.size() && !unused; ++i) {
      if (i != axis)
        maps.same(AxisMaps::in(0, i), AxisMaps::out(slot, i));
      else if (known)
        maps.range(AxisMaps::in(0, i), begin, AxisMaps::out(slot, i), 0, parts[slot].value());
      else
        maps.pin(AxisMaps::out(slot, i), "split of a symbolic length");
    }
    begin += parts[slot].value_or(0);
  }
}

void adjust_split(Adjust& adjust) {
  const NodeView view{adjust.graph, adjust.node, adjust.before};
  const std::size_t axis = view.axis("axis", 0, view.in(0).shape.size());
  const auto* kept = adjust.kept(adjust.node.input(0), axis);
  if (!kept) return;
  Integers sizes;
  std::int64_t end = 0;
  std::size_t at = 0;
  for (const Dim& part : lengths(view, axis)) {
    end += part.value();
    const std::size_t first = at;
    while (at < kept->size() && (*kept)[at] < end) ++at;
    sizes.push_back(static_cast<std::int64_t>(at - first));
  }
  adjust.node.attributes.erase("num_outputs");
  if (adjust.graph.opset() < 13)
    adjust.node.attributes["split"] = sizes;
  else
    adjust.set_constant(1, index_list(sizes));
}

const RegisterOperator split{{"Split", "", 1, infer_split, axes_split, nullptr, adjust_split, true}};      // attribute split
const RegisterOperator split_13{{"Split", "", 13, infer_split, axes_split, nullptr, adjust_split, true}};  // input split

}  // namespace
}  // namespace espalier
