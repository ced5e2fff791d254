#pragma once
/// Operator cases that oracle.py wrote.
#include <string>
#include <vector>

#include "graph/graph.h"
#include "run/session.h"

namespace espalier::test {

struct Case {
  std::string name;
  Node node;
  std::int64_t opset = 23;
  std::vector<std::pair<std::string, Tensor>> inputs, outputs;  ///< by value name
  bool gradient = false;                                        ///< to be checked against central differences
  double rtol = 1e-3, atol = 1e-5;
};

/// Runs oracle.py with the tests' Python once a process; throws when it fails.
const std::vector<Case>& cases();

/// A graph of the one node; inputs named in `bound` are initializers, the others graph inputs.
Graph graph_of(const Case& c, const std::vector<std::string>& bound);

}  // namespace espalier::test
