#pragma once
/// The ATen side of the operator table: one file in run/ops/ beside the file of the same name in graph/ops/.
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "graph/graph.h"

namespace espalier {

/// What `run` of an operator gets. Absent optional inputs are undefined tensors.
struct RunView {
  const Graph& graph;
  const Node& node;
  const std::vector<at::Tensor>& inputs;
  c10::ScalarType compute;
  const at::Tensor& in(std::size_t i) const;  ///< throws Error(invalid_input) naming the node when absent
  bool has(std::size_t i) const;
  /// Elements of an integer input as int64 (shape arithmetic).
  std::vector<std::int64_t> integers(std::size_t i) const;
  /// Axis numbers counted from the front of `rank`; throws when one is out of range or (in a list) given twice.
  std::int64_t wrap(std::int64_t axis, std::int64_t rank) const;
  std::vector<std::int64_t> wrap(std::vector<std::int64_t> axes, std::int64_t rank) const;
  /// Attribute `axis`, wrapped.
  std::int64_t axis(std::string_view attribute, std::int64_t fallback, std::int64_t rank) const;
  /// The opset of the node's domain.
  std::int64_t opset() const { return graph.opset(node.domain); }
  /// Type in which values of graph type `type` are computed: `compute` for floating types, the type itself for others.
  c10::ScalarType computed(DType type) const;
  [[noreturn]] void fail(std::string message) const;
};
using RunFunction = std::vector<at::Tensor> (*)(const RunView&);

struct RegisterRun {
  RegisterRun(const char* domain, const char* op, RunFunction run);
};
/// nullptr when there is none.
RunFunction find_run(std::string_view domain, std::string_view op);

}  // namespace espalier
