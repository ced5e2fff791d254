#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace espalier {

/// Stores floating weights of a graph in another type: as f32, or in 16 bits behind a Cast to f32, so that what is computed with
/// stays single precision. `names` are f32 initializers; weights that lie in 16 bits behind a Cast already change, too. The new
/// bytes are made a few megabytes at a time in a nameless file in `folder`, which the graph then maps: the model is never in memory
/// twice. `progress` (may be empty) is told bytes so far and in all; what it throws ends the work. Throws Error(unsupported) where
/// the graph's opset has no such type, Error(invalid_input) for a weight beyond it.
void store_weights(Graph& graph, const std::vector<std::string>& names, DType type, const std::filesystem::path& folder,
                   const std::function<void(std::uint64_t done, std::uint64_t all)>& progress = {});

}  // namespace espalier
