#include "graph/channels.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "sdk/error.h"

namespace espalier {
namespace {

// No channel axis is longer; a hostile file may say anything.
constexpr std::int64_t longest_axis = std::int64_t{1} << 20;
constexpr std::int64_t most_elements = std::int64_t{1} << 26;

std::string label(const Node& node) { return fmt::format("{} ({})", node.name.empty() ? "a node" : node.name, node.op); }

}  // namespace

ChannelClasses::ChannelClasses(const Graph& graph, const ValueMap& values) : graph_(graph), values_(values) {
  for (const auto& [name, info] : values)
    if (info.rank_known) add_value(name, info);
  maps_.resize(graph.nodes.size());
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) add_node(i);
  for (const auto& value : graph.inputs) pin_value(value.name, fmt::format("it reaches the graph's input {}", value.name));
  for (const auto& value : graph.outputs) pin_value(value.name, fmt::format("it reaches the graph's output {}", value.name));
  find_inexact_sums();
  settle();
}

void ChannelClasses::add_value(std::string_view name, const ValueInfo& info) {
  auto& axes = axes_[name];
  for (const auto& dim : info.shape) {
    Axis axis;
    const auto length = dim.value_or(0);
    if (length > 1 && length <= longest_axis && static_cast<std::int64_t>(parent_.size()) + length <= most_elements) {
      axis = {count(), length};
      parent_.resize(parent_.size() + static_cast<std::size_t>(length));
      std::iota(parent_.end() - length, parent_.end(), axis.first);
    }
    axes.push_back(axis);
  }
}

ChannelClasses::Axis ChannelClasses::axis(std::string_view value, std::size_t axis) const {
  auto found = axes_.find(value);
  return found == axes_.end() || axis >= found->second.size() ? Axis{} : found->second[axis];
}

std::size_t ChannelClasses::rank(std::string_view value) const {
  auto found = axes_.find(value);
  return found == axes_.end() ? 0 : found->second.size();
}

ChannelClasses::Axis ChannelClasses::at(std::size_t node, const AxisMaps::Port& port) const {
  const auto& n = graph_.nodes[node];
  return axis(port.output ? n.output(port.slot) : n.input(port.slot), port.axis);
}

void ChannelClasses::unite(Element a, Element b) {
  a = find(a), b = find(b);
  if (a < b) parent_[b] = a;
  if (b < a) parent_[a] = b;
}

void ChannelClasses::unite_block(Element first, std::int64_t width) {
  for (std::int64_t i = 1; i < width; ++i) unite(first, first + static_cast<Element>(i));
}

void ChannelClasses::mark(Axis axis, bool pinned, std::string reason) {
  if (axis.length == 0) return;
  if (reasons_.back() != reason) reasons_.push_back(std::move(reason));
  marked_.push_back({axis, pinned, static_cast<std::uint32_t>(reasons_.size() - 1)});
}

void ChannelClasses::pin_value(std::string_view value, std::string reason) {
  if (auto found = axes_.find(value); found != axes_.end())
    for (const auto& axis : found->second) mark(axis, true, reason);
}

void ChannelClasses::add_node(std::size_t index) {
  const auto& node = graph_.nodes[index];
  for (const auto& name : captures(node)) pin_value(name, fmt::format("the body of {} reads it", label(node)));
  maps_[index] = axis_maps(graph_, values_, node);
  for (const auto& link : maps_[index].links) add_link(index, link);
  for (const auto& m : maps_[index].marks) {
    if (m.kind == AxisMaps::Mark::rewrite) continue;
    mark(at(index, m.port), m.kind == AxisMaps::Mark::pinned, fmt::format("{}: {}", label(node), m.reason));
  }
  pin_unmapped(index);
}

void ChannelClasses::add_link(std::size_t index, const AxisMaps::Link& link) {
  const auto& node = graph_.nodes[index];
  const auto name = [&](const AxisMaps::Port& port) -> const std::string& {
    return port.output ? node.output(port.slot) : node.input(port.slot);
  };
  if (name(link.a).empty() || name(link.b).empty()) return;
  const auto a = at(index, link.a), b = at(index, link.b);
  if (a.length == 0 && b.length == 0) return;
  if (a.length == 0 || b.length == 0) {
    // A single index is no unit of its own, but what is linked with it lives as a whole; an unknown length says nothing.
    const auto& missing = a.length == 0 ? link.a : link.b;
    const auto& other = a.length == 0 ? b : a;
    const auto info = values_.find(name(missing));
    const bool single =
        info != values_.end() && missing.axis < info->second.shape.size() && info->second.shape[missing.axis] == Dim(1);
    if (!single)
      return mark(other, true, fmt::format("{}: the length of {} axis {} is not known", label(node), name(missing), missing.axis));
    const auto begin = a.length == 0 ? link.b_begin : link.a_begin;
    const auto width = a.length == 0 ? link.b_width : link.a_width;
    if (begin < 0 || width <= 0 || begin + width > other.length) return;
    const Axis part{other.first + static_cast<Element>(begin), width};
    unite_block(part.first, width);
    // Without these indices nothing would be left on the other side (a Slice that takes one of three).
    if (link.units != AxisMaps::all && width < other.length)
      mark(part, true, fmt::format("{}: they are all of {} axis {}", label(node), name(missing), missing.axis));
    return;
  }
  const auto bad = [&](const char* what) {
    throw Error(ErrorCode::internal, fmt::format("axis map of operator {}: {}", node.op, what), node.name);
  };
  if (link.a_width <= 0 || link.b_width <= 0 || link.a_begin < 0 || link.b_begin < 0) bad("a width or offset is negative");
  if (link.a_begin > a.length || link.b_begin > b.length) bad("an offset is past the axis");
  const auto units_a = (a.length - link.a_begin) / link.a_width, units_b = (b.length - link.b_begin) / link.b_width;
  const auto units = link.units > 0 ? link.units : std::min(units_a, units_b);
  if (units > units_a || units > units_b) bad("a range is past the axis");
  for (std::int64_t u = 0; u < units; ++u) {
    const auto first_a = a.first + static_cast<Element>(link.a_begin + u * link.a_width);
    const auto first_b = b.first + static_cast<Element>(link.b_begin + u * link.b_width);
    unite(first_a, first_b);
    unite_block(first_a, link.a_width);
    unite_block(first_b, link.b_width);
  }
}

// An input axis that the operator says nothing about is used in a way that no cut can follow (a kernel's height, the positions that
// a Gather reads). Reading only the shape is no such use: shape arithmetic follows by itself.
void ChannelClasses::pin_unmapped(std::size_t index) {
  const auto& node = graph_.nodes[index];
  if (node.domain.empty() && (node.op == "Shape" || node.op == "Size")) return;
  for (std::size_t slot = 0; slot < node.inputs.size(); ++slot) {
    const auto rank_of = rank(node.inputs[slot]);
    for (std::size_t axis_number = 0; axis_number < rank_of; ++axis_number) {
      const auto where = axis(node.inputs[slot], axis_number);
      if (where.length == 0) continue;
      const auto is = [&](const AxisMaps::Port& p) { return !p.output && p.slot == slot && p.axis == axis_number; };
      const auto& maps = maps_[index];
      const bool mapped = std::any_of(maps.links.begin(), maps.links.end(), [&](const auto& l) { return is(l.a) || is(l.b); }) ||
                          std::any_of(maps.marks.begin(), maps.marks.end(), [&](const auto& m) { return is(m.port); });
      if (!mapped) mark(where, true, fmt::format("{} uses axis {} of {} as a whole", label(node), axis_number, node.inputs[slot]));
    }
  }
}

void ChannelClasses::settle() {
  verdicts_.resize(parent_.size());
  for (const auto& m : marked_) {
    for (std::int64_t i = 0; i < m.axis.length; ++i) {
      auto& verdict = verdicts_[find(m.axis.first + static_cast<Element>(i))];
      auto& slot = m.pinned ? verdict.pinned : verdict.inexact;
      if (slot == 0) slot = m.reason;
    }
  }
  marked_.clear();
}

}  // namespace espalier
