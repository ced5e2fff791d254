#pragma once
#include <map>
#include <string>
#include <vector>

#include "graph/groups.h"
#include "graph/tensor_store.h"

namespace espalier {

/// Units to remove, by group id: ascending unit numbers.
using Removal = std::map<std::string, std::vector<std::int64_t>>;

/// What a cut did, for the report.
struct CutReport {
  struct Row {
    std::string group;
    std::int64_t before, after;
  };
  std::vector<Row> rows;
  std::int64_t parameters_before = 0, parameters_after = 0;
  ValueMap values;  ///< infer() of the result
};

/// Removes the units from a copy of the graph: slices every member, rewrites attributes and constants (Operator::adjust), infers
/// and validates the result. Throws Error(invalid_input) for an unknown group, a unit out of range, a pinned group, a group that
/// would lose its last unit, a violated multiple; for an inexact group unless `allow_inexact`. `store`
/// (may be empty) gets each sliced tensor as soon as it is made.
Graph cut(const Graph& graph, const std::vector<CoupledGroup>& groups, const Removal& removal, bool allow_inexact = false,
          CutReport* report = nullptr, const TensorStore& store = {});
/// The same where the classes are at hand; the graph is theirs.
Graph cut(const ChannelClasses& classes, const std::vector<CoupledGroup>& groups, const Removal& removal,
          bool allow_inexact = false, CutReport* report = nullptr, const TensorStore& store = {});

/// The same removal as a mask: every member slice set to zero, shapes kept. For exact groups mask and cut compute the same.
Graph mask(const Graph& graph, const std::vector<CoupledGroup>& groups, const Removal& removal);

}  // namespace espalier
