#pragma once
/// Which coupled groups a recipe's patterns mean.
#include <string>
#include <vector>

#include "prune/selection.h"

namespace espalier {

/// Groups of `kind` that the scope means: those whose channels are made by weights in scope (their biases, norms and readers
/// follow). `groups` may hold pinned ones: they are left out, and named when a pattern meets nothing else. Throws
/// Error(invalid_input) naming near scopes for a pattern of `include` that means no group; inexact groups are left out, which
/// `warnings` say, unless allowed, and it is an Error when nothing else is left.
std::vector<CoupledGroup> groups_in_scope(const Graph& graph, const std::vector<CoupledGroup>& groups, CoupledGroup::Kind kind,
                                          const SelectionOptions& options, std::vector<std::string>& warnings);

/// What the members that decide whose channels these are answer to: the weights that make them. Biases, norms and readers only
/// follow.
using DecidingNames = std::vector<std::vector<std::string>>;
DecidingNames deciding_names(const Graph& graph, const Uses& uses, const CoupledGroup& group);
/// Every deciding member has a name that the pattern means.
bool all_match(const DecidingNames& names, const std::string& pattern);

}  // namespace espalier
