#pragma once
/// Mixtures of experts, found by structure: a router (a product, chances, the best k of them) whose gates weigh the outputs of
/// parallel parts, which are summed (Shazeer et al., "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts
/// Layer", 2017; Jiang et al., "Mixtral of Experts", 2024). Names only label them.
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace espalier {

/// One of the parallel parts of a mixture.
struct Expert {
  std::string output;                ///< what it answers, before the gate
  std::string share;                 ///< output · gate, the summand
  std::vector<std::size_t> nodes;    ///< nodes that work for this expert alone, indices into graph.nodes, ascending
  std::vector<std::string> weights;  ///< initializers that only those nodes read, in the order in which they are read
  std::int64_t parameters = 0;       ///< elements of its weights and of its slices of the router
};

struct Mixture {
  /// An initializer of the router and the axis along which experts lie.
  struct Slices {
    std::string tensor;
    std::size_t axis;
  };
  std::string scope;           ///< the dotted names of the router's nodes have this in common; else the split's name
  std::vector<Slices> router;  ///< the product's weight first, then biases
  std::string logits;          ///< [..., experts], what the router's product and its bias give
  std::string gates;           ///< [..., experts], zero where an expert was not chosen
  std::string output;          ///< the sum over all experts; what else is added to it (a shared expert) stays
  std::size_t top_k = 0;       ///< node that chooses
  std::size_t split = 0;       ///< node that hands every expert its gate
  std::int64_t used = 0;       ///< how many experts are chosen at a position
  std::vector<Expert> experts;
};

/// All mixtures in node order. A router that something else reads, too (its logits are an output, say), makes none: cutting it
/// would change that reader. Every expert is computed at all positions in this form; stacked weights behind Gather are not found.
std::vector<Mixture> find_mixtures(const Graph& graph);

/// Mixture number → experts that leave, both counted from 0.
using ExpertRemoval = std::map<std::size_t, std::vector<std::size_t>>;

/// The graph without those experts: their nodes and weights, their slices of the router; where fewer are left than are chosen, all
/// that are left are. It computes what `graph` does when the removed experts' logits are minus infinity. Throws
/// Error(invalid_input) for numbers that are none and for a mixture that would lose all of its experts.
Graph without_experts(const Graph& graph, const std::vector<Mixture>& mixtures, const ExpertRemoval& removal);

}  // namespace espalier
