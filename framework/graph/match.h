#pragma once
/// Whether one graph is another one under other names, with weights of its own.
#include <map>
#include <string>

#include "graph/graph.h"

namespace espalier {

struct GraphMatch {
  /// Weight of the expected graph → the given graph's initializer that stands in its place; shapes are not compared.
  std::map<std::string, std::string> weights;
  std::string difference;   ///< what is not as expected; empty when the graphs match
  std::string at;           ///< the given graph's node or value where that is
  std::size_t matched = 0;  ///< values that agree
  explicit operator bool() const { return difference.empty(); }
};

/// Follows both graphs from their outputs to their inputs, which have the same names; all others may differ. A value that
/// `expected` reads and nothing in it defines is a weight: any floating initializer of `given`, directly or behind a Cast from 16
/// bits. Constants must be equal, floating ones to 2e-6 of 1 + their size. What no output needs is not looked at.
GraphMatch match_graphs(const Graph& given, const Graph& expected);

}  // namespace espalier
