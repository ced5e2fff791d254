#pragma once
#include <cstddef>
#include <vector>

#include "graph/blocks.h"

namespace espalier {

/// How the weights of blocks that leave go into one that stays.
enum class Merge {
  difference,  ///< kept + Σ (gone − kept), LaCo (Yang et al., "LaCo: Large Language Model Pruning via Layer Collapse", 2024)
  mean,        ///< the mean of all of them
};

/// The graph with the floating weights of blocks `gone` merged into those of block `kept`; the blocks themselves stay. Weights that
/// other nodes read, too, keep their value for those. Throws Error(invalid_input) for blocks of different runs or widths,
/// Error(unsupported) for weights that are stored as integers.
Graph merge_blocks(const Graph& graph, const std::vector<Block>& blocks, std::size_t kept, const std::vector<std::size_t>& gone,
                   Merge how);

}  // namespace espalier
