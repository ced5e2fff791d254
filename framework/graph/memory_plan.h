#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "graph/op.h"

namespace espalier {

/// Where one value lies in the arena of a run, and the steps (positions in the order) between which it must be kept.
struct PlannedBuffer {
  std::string value;
  std::int64_t bytes = 0, offset = 0;
  std::size_t first = 0, last = 0;  ///< made at step `first`, read for the last time at step `last`
};

/// Buffers of everything that nodes make, for given lengths. Inputs and weights are not counted; outputs of the graph stay to the
/// end. Offsets are given greedily by size (Pisarchyk and Lee, 2020, "Efficient Memory Management for Deep Neural Net Inference").
struct MemoryPlan {
  std::vector<std::size_t> order;  ///< indices into graph.nodes: as they stood, or an order with a lower peak
  std::vector<PlannedBuffer> buffers;
  std::int64_t peak_before = 0;                       ///< every value a buffer of its own
  std::int64_t peak_after = 0;                        ///< size of the arena
  std::vector<std::int64_t> live_before, live_after;  ///< bytes alive at each step, in the old order and in the new one
  std::vector<std::string> unknown;                   ///< values whose size is not known: not planned
  bool reordered = false;
};

/// `lengths` binds the symbols of shapes (batch, sequence, past). Throws Error(invalid_input) naming a symbol that is not bound and
/// that a planned value's shape needs.
MemoryPlan plan_memory(const Graph& graph, const ValueMap& values, const Bindings& lengths);

/// The nodes in the plan's order.
void apply_order(Graph& graph, const MemoryPlan& plan);

}  // namespace espalier
