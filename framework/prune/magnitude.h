#pragma once
#include <cstddef>
#include <functional>

#include "graph/groups.h"
#include "prune/scores.h"

namespace espalier {

struct MagnitudeOptions {
  int p = 2;                    ///< 1: sum of absolute values, 2: Euclidean norm
  bool producers_only = false;  ///< only slices that make the channel count
  int threads = 1;              ///< that read weights; scores are the same for any number
};

/// Magnitude of a unit's weights over all the slices that live and die together (Li et al., "Pruning Filters for Efficient
/// ConvNets", ICLR 2017). In doubles, in an order that the shape sets, so that thread count and instruction set play no part. What
/// is not floating point does not count. `each` (may be empty) is called before every group.
Scores magnitude(const Graph& graph, const std::vector<CoupledGroup>& groups, const MagnitudeOptions& options = {},
                 const std::function<void(std::size_t done, std::size_t all)>& each = {});

}  // namespace espalier
