#pragma once
/// NaN taint against axis maps: poison indices of an axis of a node's input and compare where its outputs turn NaN with what the
/// operator's maps say.
#include <set>
#include <string>
#include <vector>

#include "graph/op.h"
#include "run/session.h"

namespace espalier::test {

struct Taint {
  std::set<std::string> operators;      ///< for which at least one claim was checked
  std::int64_t claims = 0;              ///< (input, axis, unit) that were poisoned
  std::vector<std::string> violations;  ///< what contradicts the maps
};

/// Checks every node of a graph that runs on `inputs`; every floating input of every node, every axis of known length.
void check_taint(const Graph& graph, const TensorMap& inputs, Taint& taint);

/// One node as a graph of its own. Floating inputs become inputs of the graph (with positive random data), integers initializers.
struct SingleNode {
  Graph graph;
  TensorMap inputs;
};
struct Operand {
  std::vector<std::int64_t> shape;                ///< floating data, unless
  std::optional<Tensor> constant = std::nullopt;  ///< it is this
  bool absent = false;
};
SingleNode single_node(const std::string& op, const std::vector<Operand>& operands,
                       std::map<std::string, Attribute> attributes = {}, std::size_t outputs = 1, std::int64_t opset = 23);

}  // namespace espalier::test
