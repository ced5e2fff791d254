#pragma once
/// What channels of a model that was cut several times were in the model before the first cut.
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graph/surgery.h"

namespace espalier {

/// Follows the units of some groups through cuts, by the indices that are left along each (tensor, axis). Group ids do not last:
/// they name an offset, and offsets move when something before them goes.
class Origins {
 public:
  /// A unit of the uncut model: `groups[group].units[unit]`.
  struct Unit {
    std::size_t group = 0, unit = 0;
    bool operator==(const Unit&) const = default;
  };

  /// `groups` are the uncut model's, and outlive this.
  Origins(const Graph& graph, const std::vector<CoupledGroup>& groups);

  /// What each unit of a group of the model as it is now was; nothing where the group is not one of those followed. Throws
  /// Error(internal) for a group that mixes units which were apart.
  std::optional<std::vector<Unit>> of(const CoupledGroup& now) const;
  /// Records that the model as it is now loses `removal`, by the ids of `now`, groups of that model.
  void cut(const std::vector<CoupledGroup>& now, const Removal& removal);
  /// All that went, by the uncut model's ids.
  const Removal& removal() const { return removal_; }
  /// Goes back to another state of the same model. False, and nothing changes, when it names what is not there.
  bool restore(const Removal& removal);

 private:
  struct Axis {
    std::vector<std::optional<Unit>> owner;  ///< of each index of the uncut model
    std::vector<std::size_t> left;           ///< indices of the uncut model that are left, ascending
  };
  void rebuild();
  std::optional<Unit> unit_at(const Member& member, std::int64_t index) const;

  const std::vector<CoupledGroup>& groups_;
  std::map<std::pair<std::string, std::size_t>, Axis> axes_;
  Removal removal_;
};

}  // namespace espalier
