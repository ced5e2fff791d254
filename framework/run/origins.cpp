#include "run/origins.h"

#include <fmt/format.h>

#include <algorithm>

#include "sdk/error.h"

namespace espalier {

Origins::Origins(const Graph& graph, const std::vector<CoupledGroup>& groups) : groups_(groups) {
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const CoupledGroup& group = groups[g];
    for (std::size_t u = 0; u < group.units.size(); ++u) {
      for (const Slice& slice : group.units[u]) {
        const Member& member = group.members[slice.member];
        Axis& axis = axes_[{member.tensor, member.axis}];
        if (axis.owner.empty())
          axis.owner.resize(static_cast<std::size_t>(graph.initializers.at(member.tensor).shape.at(member.axis)));
        for (auto index : slice.indices) axis.owner.at(static_cast<std::size_t>(index)) = Unit{g, u};
      }
    }
  }
  rebuild();
}

void Origins::rebuild() {
  std::vector<std::vector<char>> gone;
  for (const CoupledGroup& group : groups_) {
    auto& units = gone.emplace_back(group.units.size(), 0);
    if (const auto found = removal_.find(group.id); found != removal_.end())
      for (auto u : found->second) units.at(static_cast<std::size_t>(u)) = 1;
  }
  for (auto& [where, axis] : axes_) {
    axis.left.clear();
    for (std::size_t i = 0; i < axis.owner.size(); ++i)
      if (!axis.owner[i] || !gone[axis.owner[i]->group][axis.owner[i]->unit]) axis.left.push_back(i);
  }
}

std::optional<Origins::Unit> Origins::unit_at(const Member& member, std::int64_t index) const {
  const auto found = axes_.find({member.tensor, member.axis});
  if (found == axes_.end()) return std::nullopt;
  const Axis& axis = found->second;
  if (index < 0 || static_cast<std::size_t>(index) >= axis.left.size())
    throw Error(ErrorCode::internal, fmt::format("index {} of axis {} was not there before the cuts", index, member.axis),
                member.tensor);
  return axis.owner[axis.left[static_cast<std::size_t>(index)]];
}

std::optional<std::vector<Origins::Unit>> Origins::of(const CoupledGroup& now) const {
  std::vector<Unit> units;
  bool followed = false, first = true;
  for (const auto& slices : now.units) {
    std::optional<Unit> unit;
    bool fresh = true;
    for (const Slice& slice : slices) {
      for (auto index : slice.indices) {
        const auto was = unit_at(now.members[slice.member], index);
        if (!fresh && was != unit)
          throw Error(ErrorCode::internal, "a unit of coupled channels mixes what was apart before the cuts", now.id);
        unit = was;
        fresh = false;
      }
    }
    if (!first && followed != unit.has_value())
      throw Error(ErrorCode::internal, "a group of coupled channels mixes what was in scope with what was not", now.id);
    followed = unit.has_value();
    first = false;
    if (unit) units.push_back(*unit);
  }
  return followed ? std::optional(std::move(units)) : std::nullopt;
}

void Origins::cut(const std::vector<CoupledGroup>& now, const Removal& removal) {
  for (const CoupledGroup& group : now) {
    const auto found = removal.find(group.id);
    if (found == removal.end() || found->second.empty()) continue;
    const auto units = of(group);
    if (!units) throw Error(ErrorCode::internal, "the cut takes a group that is not followed", group.id);
    for (auto u : found->second) {
      const Unit& was = units->at(static_cast<std::size_t>(u));
      removal_[groups_[was.group].id].push_back(static_cast<std::int64_t>(was.unit));
    }
  }
  for (auto& [id, units] : removal_) std::sort(units.begin(), units.end());
  rebuild();
}

bool Origins::restore(const Removal& removal) {
  for (const auto& [id, units] : removal) {
    const auto group = std::find_if(groups_.begin(), groups_.end(), [&](const auto& each) { return each.id == id; });
    if (group == groups_.end()) return false;
    for (auto u : units)
      if (u < 0 || static_cast<std::size_t>(u) >= group->units.size()) return false;
    if (!std::is_sorted(units.begin(), units.end())) return false;
  }
  removal_ = removal;
  rebuild();
  return true;
}

}  // namespace espalier
