#pragma once
#include <string>

#include "recipe/node.h"

namespace espalier {

/// Replaces, in the table of stages, each stage with `matrix = { KEY = [values] }` by one for every combination of values, and so
/// each stage that reads such a one: `pruned` becomes `pruned[sparsity=0.1]`, `pruned[sparsity=0.2]`, and what reads `@pruned`
/// becomes as many, each reading the one with its own values. Values that come to a stage by two ways are the same there.
/// `@pruned[*]` is a list of all of them,
/// `@pruned[sparsity=0.2]` that one. Where two matrices have a key in common, it is written `pruned.sparsity`.
void expand_matrix(Node& stages, Findings& findings);

/// "pruned" of "pruned[sparsity=0.1]".
std::string_view stage_base(std::string_view name);

/// "pruned[sparsity=0.1].scores" → stage and port; the port is empty where none is named.
struct StagePort {
  std::string stage, port;
};
StagePort split_reference(std::string_view text);

}  // namespace espalier
