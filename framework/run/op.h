#pragma once
/// The ATen side of the operator table: one file in run/ops/ beside the file of the same name in graph/ops/.
#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
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
  [[noreturn]] void fail(std::string message) const;    ///< Error(invalid_input): the node or its inputs are wrong
  [[noreturn]] void refuse(std::string message) const;  ///< Error(unsupported): the node is valid, and not done here
};
using RunFunction = std::vector<at::Tensor> (*)(const RunView&);

struct RegisterRun {
  RegisterRun(const char* domain, const char* op, RunFunction run);
};
/// nullptr when there is none.
RunFunction find_run(std::string_view domain, std::string_view op);

/// A tensor, a sequence of tensors, or nothing (an absent input, an empty optional).
struct RunValue {
  at::Tensor tensor;
  std::shared_ptr<const std::vector<at::Tensor>> sequence;

  RunValue() = default;
  RunValue(at::Tensor value) : tensor(std::move(value)) {}  // NOLINT: a tensor is a value
  RunValue(std::vector<at::Tensor> values) : sequence(std::make_shared<const std::vector<at::Tensor>>(std::move(values))) {}
  bool present() const { return tensor.defined() || sequence; }
};

using RunValues = std::map<std::string, RunValue>;

/// A subgraph of a node, bound once.
class Body {
 public:
  virtual ~Body() = default;
  virtual std::size_t inputs() const = 0;
  /// Output values from the body's own inputs; `captured` are the values that the node's bodies read of the surrounding graph, as
  /// captures(node) lists them.
  virtual std::vector<RunValue> run(const std::vector<RunValue>& inputs, std::span<const RunValue> captured) = 0;
};
using Bodies = std::map<std::string, std::unique_ptr<Body>, std::less<>>;  ///< by attribute

/// What `run` of an operator on values gets: sequences, optionals and control flow.
struct ValuesView {
  const Graph& graph;
  const Node& node;
  std::span<const RunValue> inputs;    ///< as many as the node has
  std::span<const RunValue> captured;  ///< as captures(node) lists them
  const Bodies& bodies;
  c10::ScalarType compute;

  bool has(std::size_t i) const { return i < inputs.size() && inputs[i].present(); }
  const at::Tensor& tensor(std::size_t i) const;                 ///< throws Error(invalid_input) where it is none
  const std::vector<at::Tensor>& sequence(std::size_t i) const;  ///< throws Error(invalid_input) where it is none
  /// The one integer (or boolean) in input i.
  std::int64_t integer(std::size_t i) const;
  std::vector<RunValue> run(std::string_view body, const std::vector<RunValue>& given) const;
  std::size_t body_inputs(std::string_view body) const;
  [[noreturn]] void fail(std::string message) const;
  [[noreturn]] void refuse(std::string message) const;
};
using ValuesFunction = std::vector<RunValue> (*)(const ValuesView&);

/// An operator may have both functions: this one then serves where an input is a sequence.
struct RegisterValuesRun {
  RegisterValuesRun(const char* domain, const char* op, ValuesFunction run);
};
ValuesFunction find_values_run(std::string_view domain, std::string_view op);

}  // namespace espalier
