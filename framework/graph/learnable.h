#pragma once
#include <string>
#include <vector>

#include "graph/graph.h"

namespace espalier {

/// Names of the initializers that training changes: floating ones that some operator reads as data. Left out are constants of the
/// computation: rotary caches, running statistics, quantization scales, limits, epsilons and other single elements.
std::vector<std::string> learnable(const Graph& graph);

}  // namespace espalier
