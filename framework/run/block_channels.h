#pragma once
#include <string>

#include "graph/blocks.h"
#include "graph/op.h"

namespace espalier {

/// Where the channels of a block's hidden state lie: axis 1 where convolutions make them, the last elsewhere.
struct BlockChannels {
  std::int64_t axis, width;
  std::size_t rank;
};
/// Throws Error(unsupported) with `label`, `where` and `hint` when the width is not known.
BlockChannels block_channels(const Graph& graph, const ValueMap& values, const Block& block, const std::string& label,
                             const std::string& where, const std::string& hint);

}  // namespace espalier
