#include "run/unit_readers.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <unordered_map>

#include "graph/channels.h"
#include "sdk/error.h"

namespace espalier {
namespace {

/// Ports of a node that a channel at `from` meets inside it, `from` included.
std::vector<AxisMaps::Port> met_by(const AxisMaps& maps, AxisMaps::Port from) {
  const auto same = [](const AxisMaps::Port& a, const AxisMaps::Port& b) {
    return a.output == b.output && a.slot == b.slot && a.axis == b.axis;
  };
  std::vector<AxisMaps::Port> met{from};
  const auto meet = [&](const AxisMaps::Port& port) {
    if (std::none_of(met.begin(), met.end(), [&](const auto& p) { return same(p, port); })) met.push_back(port);
  };
  for (std::size_t i = 0; i < met.size(); ++i)
    for (const auto& link : maps.links) {
      const auto port = met[i];
      if (same(link.a, port)) meet(link.b);
      if (same(link.b, port)) meet(link.a);
    }
  return met;
}

class Readers {
 public:
  Readers(const Graph& graph, const std::vector<CoupledGroup>& groups)
      : graph_(graph), values_(infer(graph)), classes_(graph, values_) {
    std::int32_t next = 0;
    for (const auto& group : groups)
      for (const auto& unit : group.units) {
        const auto& member = group.members[unit.front().member];
        const auto axis = classes_.axis(member.tensor, member.axis);
        const auto index = unit.front().indices.front();
        if (index >= axis.length)
          throw Error(ErrorCode::internal, "a coupled group names a channel that does not exist", member.tensor);
        unit_of_[classes_.find(axis.first + static_cast<ChannelClasses::Element>(index))] = next++;
      }
    for (const auto& [name, tensor] : graph.initializers) constant_.insert(name);
  }

  std::vector<UnitAxis> find() {
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) {
      const auto& node = graph_.nodes[n];
      const bool fixed = !node.inputs.empty() && captures(node).empty() &&
                         std::all_of(node.inputs.begin(), node.inputs.end(),
                                     [&](const auto& input) { return input.empty() || constant_.contains(input); });
      if (fixed) {
        constant_.insert(node.outputs.begin(), node.outputs.end());
        continue;
      }
      for (std::size_t slot = 0; slot < node.inputs.size(); ++slot) {
        if (node.inputs[slot].empty() || constant_.contains(node.inputs[slot])) continue;
        for (std::size_t axis = 0; axis < classes_.rank(node.inputs[slot]); ++axis)
          if (used_up(n, AxisMaps::in(slot, axis))) watch(node.inputs[slot], axis);
      }
    }
    return std::move(found_);
  }

 private:
  bool used_up(std::size_t n, AxisMaps::Port port) const {
    if (classes_.at(n, port).length == 0) return false;
    const auto& node = graph_.nodes[n];
    bool weight = false;
    for (const auto& met : met_by(classes_.maps(n), port)) {
      if (met.output && !node.output(met.slot).empty()) return false;
      if (!met.output) weight = weight || constant_.contains(node.input(met.slot));
    }
    return weight;
  }

  void watch(const std::string& value, std::size_t axis_number) {
    if (!seen_.insert({value, axis_number}).second) return;  // several weights read it
    const auto axis = classes_.axis(value, axis_number);
    UnitAxis watched{value, axis_number, {}};
    bool any = false;
    for (std::int64_t i = 0; i < axis.length; ++i) {
      const auto at = unit_of_.find(classes_.find(axis.first + static_cast<ChannelClasses::Element>(i)));
      watched.unit.push_back(at == unit_of_.end() ? UnitAxis::nobody : at->second);
      any = any || at != unit_of_.end();
    }
    if (any) found_.push_back(std::move(watched));
  }

  const Graph& graph_;
  const ValueMap values_;
  const ChannelClasses classes_;
  std::unordered_map<ChannelClasses::Element, std::int32_t> unit_of_;
  std::set<std::string> constant_;
  std::set<std::pair<std::string, std::size_t>> seen_;
  std::vector<UnitAxis> found_;
};

}  // namespace

UnitReaders::UnitReaders(const Graph& graph, const std::vector<CoupledGroup>& groups)
    : groups_(groups), axes_(Readers(graph, groups).find()) {
  for (const auto& group : groups) {
    spans_.push_back({read_.size(), read_.size() + group.units.size(), true});
    read_.resize(spans_.back().end, false);
  }
  for (const auto& axis : axes_)
    for (const auto unit : axis.unit)
      if (unit != UnitAxis::nobody) read_[static_cast<std::size_t>(unit)] = true;
  if (axes_.empty())
    throw_invalid(
        fmt::format("no weight reads the channels of any of the {} groups, so nothing of theirs can be observed", groups.size()),
        groups.empty() ? "" : fmt::format("group \"{}\"", groups.front().id), "score them with metric/magnitude");
  for (Units& units : spans_)
    units.read = std::find(read_.begin() + std::ptrdiff_t(units.first), read_.begin() + std::ptrdiff_t(units.end), false) ==
                 read_.begin() + std::ptrdiff_t(units.end);
}

Scores UnitReaders::scores(Context& context, std::span<const double> by_unit) const {
  Scores scores;
  std::vector<std::string> unread;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const Units& units = spans_[g];
    if (units.read)
      scores[groups_[g].id].assign(by_unit.begin() + std::ptrdiff_t(units.first), by_unit.begin() + std::ptrdiff_t(units.end));
    else
      unread.push_back(groups_[g].id);
  }
  if (!unread.empty())
    context.log(LogLevel::warning,
                fmt::format("{} of {} groups get no score, because no weight reads their channels (\"{}\"): leave them out of the "
                            "scope, or score them with metric/magnitude",
                            unread.size(), groups_.size(), unread.front()));
  return scores;
}

std::vector<std::string> UnitReaders::groups_on(const UnitAxis& axis) const {
  std::vector<std::string> ids;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const Units& units = spans_[g];
    if (units.read && std::any_of(axis.unit.begin(), axis.unit.end(), [&](std::int32_t u) {
          return u != UnitAxis::nobody && static_cast<std::size_t>(u) >= units.first && static_cast<std::size_t>(u) < units.end;
        }))
      ids.push_back(groups_[g].id);
  }
  return ids;
}

}  // namespace espalier
