#pragma once
/// What each expert of a mixture does, on data.
#include <vector>

#include "graph/experts.h"
#include "run/metric_examples.h"

namespace espalier {

/// Means over all positions that the data attends to.
struct ExpertUse {
  double chosen = 0;  ///< share of the positions at which the router chose it
  double gate = 0;    ///< mean gate, zero where it was not chosen: frequency × mean weight (soft counting of Muzio, Sun and He,
                      ///< "SEER-MoE: Sparse Expert Efficiency through Regularization for Mixture-of-Experts", 2024)
  double output = 0;  ///< mean norm of gate · output: what its removal takes from the sum at most, before the others' gates grow
};

/// [mixture][expert]. `outputs`: measure the outputs as well, which runs the experts. Throws Error(invalid_input)
/// where the data attends to no position.
std::vector<std::vector<ExpertUse>> expert_use(Context& context, const Graph& graph, const std::vector<Mixture>& mixtures,
                                               const MetricExamples& examples, bool outputs);

}  // namespace espalier
