#pragma once
/// How much each repeated block does, on data.
#include <cstddef>
#include <string>
#include <vector>

#include "graph/blocks.h"
#include "run/metric_examples.h"

namespace espalier {

/// Angular distance between what enters block i and what leaves block j, for all i ≤ j of one run: arccos of the cosine over the
/// channels, over π, mean over all positions that count (Gromov et al., "The Unreasonable Ineffectiveness of the Deeper Layers",
/// 2024). 0: nothing changes. For i = j it orders blocks as the block influence of Men et al. ("ShortGPT: Layers in Large Language
/// Models are More Redundant Than You Expect", 2024) does.
class BlockDistances {
 public:
  /// Runs the examples. Throws Error(unsupported) for hidden states without a known width.
  BlockDistances(Context& context, const Graph& graph, const std::vector<Block>& blocks, const MetricExamples& examples);
  /// Blocks i … j must be of one run.
  double between(std::size_t first, std::size_t last) const;

 private:
  std::vector<std::vector<double>> distance_;  // [first][last - first]
};

/// Mean loss of the graph on the examples, in what its objective counts (nats, squared error).
double mean_loss(Context& context, const Graph& graph, const MetricExamples& examples, std::string_view label);

}  // namespace espalier
