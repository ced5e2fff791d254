#pragma once
/// Coupled channels: which slices of which tensors live and die together (the dependency graph of Torch-Pruning; Fang et al.,
/// "DepGraph: Towards Any Structural Pruning", CVPR 2023), found from the operators' axis maps, at the grain of single indices.
#include <cstdint>
#include <string>
#include <vector>

#include "graph/op.h"

namespace espalier {

class ChannelClasses;

/// Indices of one tensor's axis that belong to a unit.
struct Slice {
  std::uint32_t member;               ///< index into CoupledGroup::members
  std::vector<std::int64_t> indices;  ///< ascending
};

/// An (initializer, axis) that a group touches.
struct Member {
  std::string tensor;
  std::size_t axis;
  std::int64_t width;  ///< indices per unit
  bool producer;       ///< the axis makes the channel (else it reads it)
};

/// Units that can be removed one by one: unit u's slices are `units[u]`. All units of a group have the same members and widths.
struct CoupledGroup {
  std::string id;  ///< "tensor:axis:offset" of its first producer, in node order
  std::vector<Member> members;
  std::vector<std::vector<Slice>> units;
  std::vector<std::string> scopes;                            ///< names of the nodes that read or write it (for `scope` globs)
  enum class Kind { channels, heads } kind = Kind::channels;  ///< heads: bundled by an Attention operator
  bool exact = true;  ///< a cut equals its mask (with rewrites); else `reason` says which node is not
  std::string reason;
  bool pinned = false;        ///< may not be cut, for `reason`
  std::int64_t multiple = 1;  ///< units left must be divisible by this (grouped convolutions)
  /// Elements of initializers that disappear with one unit, everything else kept.
  std::int64_t parameters_per_unit = 0;
};

/// All groups with at least two units, in node order. Values that reach a graph input or output are pinned.
/// `include_pinned`: list those too.
std::vector<CoupledGroup> coupled_groups(const Graph& graph, const ValueMap& values, bool include_pinned = false);
/// The same where the classes are at hand.
std::vector<CoupledGroup> coupled_groups(const ChannelClasses& classes, bool include_pinned = false);

}  // namespace espalier
