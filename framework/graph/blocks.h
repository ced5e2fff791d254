#pragma once
/// Repeated blocks: the layers of a transformer, the residual blocks of a CNN. They are found by structure alone; names only label
/// them. What blocks hand on is one value, the hidden state (a residual stream): every path from it to the model's answer leads
/// through the next one. Stages walk them, recompute them (activation checkpointing) and compare what flows between them
/// (hidden-state distillation).
#include <cstddef>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace espalier {

struct Block {
  std::string scope;   ///< the dotted names of its nodes have this in common ("model.layers.3"); perhaps empty
  std::string input;   ///< the hidden state that enters: a node's output or a graph input
  std::string output;  ///< the hidden state that leaves: the input of the next block of the run
  /// Nodes that run for this block alone and depend on the graph's inputs, indices into graph.nodes, each after what it reads.
  /// nodes[i] of one block does in it what nodes[i] does in every other block of its run; widths and constants may differ.
  std::vector<std::size_t> nodes;
  /// Nodes that make this block's constants (a transposed or dequantized weight) and nothing else's, in graph order.
  std::vector<std::size_t> constants;
  /// Other values that it reads and does not make, sorted: masks, positions, rotary tables that are computed once, shared
  /// constants. Initializers are not listed. All blocks of a run have the same ones, apart from graph inputs that one block alone
  /// reads (its past keys).
  std::vector<std::string> sides;
  std::size_t run = 0;  ///< blocks of one number are copies of one structure, each reading what the one before it wrote
};

/// All repeated blocks on the way to the output that most of the graph works for, in the order in which they run; at least two to a
/// run, each with a weight of rank two or more; none when nothing repeats. Blocks of one run have the same operators, attributes
/// (but for numbers that follow from widths) and wiring; their constants may have any shape and be stored in any way. A node that
/// only another output needs belongs to no block. `graph` must be in topological order.
std::vector<Block> find_blocks(const Graph& graph);

}  // namespace espalier
