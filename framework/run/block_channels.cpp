#include "run/block_channels.h"

#include <fmt/format.h>

#include <algorithm>

#include "sdk/error.h"

namespace espalier {

BlockChannels block_channels(const Graph& graph, const ValueMap& values, const Block& block, const std::string& label,
                             const std::string& where, const std::string& hint) {
  const auto found = values.find(block.output);
  const bool known = found != values.end() && found->second.rank_known && found->second.shape.size() >= 2;
  const bool images =
      std::any_of(block.nodes.begin(), block.nodes.end(), [&](std::size_t n) { return graph.nodes[n].op == "Conv"; });
  if (known) {
    const Shape& shape = found->second.shape;
    const std::size_t axis = images && shape.size() >= 3 ? 1 : shape.size() - 1;
    if (shape[axis].known()) return {static_cast<std::int64_t>(axis), shape[axis].value(), shape.size()};
  }
  throw_unsupported(fmt::format("{}: the width of its output {} is not known", label,
                                known ? fmt::format("\"{}\" {}", block.output, text(found->second.shape)) : block.output),
                    where, hint);
}

}  // namespace espalier
