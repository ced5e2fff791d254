#pragma once
/// infer() a node at a time, for whoever makes a graph and has to know its values while making it.
#include <vector>

#include "graph/op.h"

namespace espalier {

/// Type, shape, and the elements of a small integer tensor.
ValueInfo info_of(const Tensor& tensor);
/// Infos of the outputs of a node whose inputs are in `values`; as many as the node has, or more.
std::vector<ValueInfo> infer_node(const Graph& graph, const ValueMap& values, const Node& node);

}  // namespace espalier
