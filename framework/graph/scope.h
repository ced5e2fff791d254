#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"

namespace espalier {

/// Scopes say which part of a model a stage works on: patterns over dotted names (`model.layers.3.mlp.down_proj.weight`), where `*`
/// stands for any characters, dots included. A pattern that matches a leading part of a name up to a dot matches the name: `*.mlp`
/// takes in everything below any `mlp`.
bool scope_matches(std::string_view pattern, std::string_view name);

/// A name as scopes see it: `/model/layers.3/mlp/MatMul` and `model.layers.3.mlp.MatMul` are the same.
std::string dotted(std::string_view name);

/// The names under which an initializer answers to scopes: its own, and those of the nodes that read it (exported files often name
/// tensors by number and nodes by scope).
std::vector<std::string> scope_names(const Uses& uses, const Graph& graph, const std::string& initializer);

/// Include and exclude patterns as the recipe gives them.
struct Scope {
  std::vector<std::string> include{"*"};
  std::vector<std::string> exclude;
  /// Any of a tensor's names is included and none excluded.
  bool covers(std::span<const std::string> names) const;
};

/// A few scopes among `names`, the nearest to `pattern` first, layer numbers folded into `*`; for hints.
std::vector<std::string> near_scopes(std::string_view pattern, const std::vector<std::string>& names, std::size_t most = 5);

}  // namespace espalier
