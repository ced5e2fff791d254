#pragma once
#include <vector>

#include "recipe/node.h"

namespace espalier {

/// One edge of the recipe's graph: stage `to` reads stage `from` through the reference at `at`.
struct Edge {
  std::size_t from, to;
  Position at;
};

/// Stages (by index) so that producers come first, ties by index. Every circle is a finding that names its stages; the order is
/// empty then. Linear in stages and edges up to a logarithm, without recursion.
std::vector<std::size_t> topological_order(const std::vector<std::string>& names, const std::vector<Edge>& edges,
                                           Findings& findings);

}  // namespace espalier
