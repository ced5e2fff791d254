#pragma once
/// Depth pruning: repeated blocks leave a model, the residual stream stays.
#include <cstddef>
#include <string>
#include <vector>

#include "graph/blocks.h"
#include "graph/op.h"

namespace espalier {

/// The graph without the blocks whose numbers are in `gone` (as find_blocks() counts): what read a block's output reads what
/// entered it. Everything only those blocks needed goes along; graph outputs keep their names. Throws Error(invalid_input) for a
/// number that is none, for a block whose output has another type or shape than its input, and for one with an inner value that
/// something outside of it reads.
Graph without_blocks(const Graph& graph, const std::vector<Block>& blocks, const std::vector<std::size_t>& gone);

/// Why a block cannot leave, "" where it can.
std::string why_not_removable(const Graph& graph, const ValueMap& values, const Block& block);

}  // namespace espalier
