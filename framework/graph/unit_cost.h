#pragma once
/// What a unit of a coupled group costs, found from the nodes that it reaches and not by a cut of the whole graph.
#include <optional>
#include <vector>

#include "graph/channels.h"
#include "graph/groups.h"

namespace espalier {

/// Multiply-accumulates that go with one unit of each group, the others kept (unknown lengths count as 1): those that a cut of the
/// first `multiple` units would save, divided by `multiple`. Nothing for a group that is pinned or cannot be cut alone.
std::vector<std::optional<double>> macs_per_unit(const ChannelClasses& classes, const std::vector<CoupledGroup>& groups);

}  // namespace espalier
