#pragma once
/// The operator table. An operator is one file in graph/ops/ (infer, axes, cost) and its neighbour of the same name in run/ops/
/// (ATen). Families of one shape (element-wise functions) may share a file.
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"

namespace espalier {

/// What is known of a value without running: type, shape, and, for the integers of shape arithmetic, the elements themselves.
struct ValueInfo {
  DType dtype = DType::undefined;
  Shape shape;
  std::optional<std::vector<Dim>> content;  ///< elements of a small integer tensor (rank 0 or 1), symbolic
  bool rank_known = true;
  bool sequence = false;  ///< a sequence of tensors; type and shape are what all of its elements have in common
};
using ValueMap = std::map<std::string, ValueInfo, std::less<>>;

/// What an operator's functions see of one node.
struct NodeView {
  const Graph& graph;
  const Node& node;
  const ValueMap& values;
  /// Info of input i; throws Error(invalid_input) naming the node when it is absent.
  const ValueInfo& in(std::size_t i) const;
  const ValueInfo& out(std::size_t i) const;
  bool has(std::size_t i) const;  ///< input i is present
  const Tensor* constant(std::size_t i) const;
  /// Integers of input i, when known (constant or shape arithmetic).
  std::optional<std::vector<std::int64_t>> integers(std::size_t i) const;
  /// attribute `axis`, negative counted from the end of `rank`; throws when out of range.
  std::size_t axis(std::string_view attribute, std::int64_t fallback, std::size_t rank) const;
  [[noreturn]] void fail(std::string message) const;    ///< Error(invalid_input) with the node's name and operator
  [[noreturn]] void refuse(std::string message) const;  ///< Error(unsupported): valid, and not done here
};

/// How channels travel through one node. Every axis of every input and output is in exactly one of these states:
///   linked   some index i of (value, axis) lives and dies with indices of other (value, axis) pairs;
///   reduced  an input axis summed over or matched element by element with another input's axis (MatMul's K): cutting it in all its
///            members changes no kept output element, if the cut slices are zero;
///   free     nothing is said: the axis is independent of every other (an output axis made anew);
///   pinned   cutting is refused, with a reason.
class AxisMaps {
 public:
  /// A position on a node: input or output slot, and axis.
  struct Port {
    bool output;
    std::size_t slot;
    std::size_t axis;
  };
  static Port in(std::size_t slot, std::size_t axis) { return {false, slot, axis}; }
  static Port out(std::size_t slot, std::size_t axis) { return {true, slot, axis}; }

  /// index i of a ↔ index i of b, for all i (equal lengths).
  void same(Port a, Port b);
  /// index a_begin+i ↔ index b_begin+i for i < length (Concat, Split, Slice).
  void range(Port a, std::int64_t a_begin, Port b, std::int64_t b_begin, std::int64_t length);
  /// unit u covers indices [u*a_width, (u+1)*a_width) of a and [u*b_width, (u+1)*b_width) of b: they live and die together
  /// (heads, flattened channels, groups of a convolution).
  void blocks(Port a, std::int64_t a_width, Port b, std::int64_t b_width);
  /// indices of one block of `width` live and die together on this port.
  void bundle(Port a, std::int64_t width);
  void pin(Port a, std::string reason);
  /// The function uses the whole axis (a norm's or softmax's own axis). `exact`: a rewrite after the cut makes it exact.
  void whole(Port a, bool exact, std::string reason);
  /// Both input axes are summed over together.
  void reduce(Port a, Port b) { same(a, b); }

  /// Unit u < units: a's indices [a_begin + u*a_width, + a_width) with b's [b_begin + u*b_width, + b_width). `units` is `all` where
  /// the link covers the whole axes. A bundle is a link of a port with itself, with equal begins and widths.
  static constexpr std::int64_t all = -1;
  struct Link {
    Port a;
    std::int64_t a_begin, a_width;
    Port b;
    std::int64_t b_begin, b_width;
    std::int64_t units;
  };
  struct Mark {
    Port port;
    std::string reason;
    enum Kind { pinned, inexact, rewrite } kind;
  };
  std::vector<Link> links;
  std::vector<Mark> marks;
};

/// The maps of one node; every axis of a node without operator, without `axes`, or with a value of unknown rank is pinned.
AxisMaps axis_maps(const Graph& graph, const ValueMap& values, const Node& node);

/// Multiply-accumulates and bytes of one node, with symbols bound by `bindings` (a symbol without binding counts as 1).
struct Cost {
  double macs = 0;
  double bytes_read = 0;
  double bytes_written = 0;
};
using Bindings = std::map<std::string, std::int64_t>;

/// A node before and after surgery, for operators whose attributes or constants speak of lengths.
struct Adjust {
  Graph& graph;
  Node& node;
  const ValueMap& before;  ///< infos before the cut
  /// Kept indices of (value, axis), ascending; nullptr when that axis is not cut.
  std::function<const std::vector<std::int64_t>*(const std::string& value, std::size_t axis)> kept;
  /// Gives the node's input a constant of its own (another reader keeps the old one).
  void set_constant(std::size_t input, Tensor tensor);
};

struct Operator {
  std::string name;
  std::string domain;  ///< "" for ai.onnx
  int since = 1;       ///< first opset that this entry understands
  /// Output infos from input infos; throws Error(invalid_input) naming the node when they do not fit.
  std::function<std::vector<ValueInfo>(const NodeView&)> infer;
  /// Absent: every axis the node touches is pinned.
  std::function<void(const NodeView&, AxisMaps&)> axes;
  /// Absent: element-wise cost (one pass over the outputs, no MACs).
  std::function<double(const NodeView&, const Bindings&)> macs;
  /// Absent: nothing to rewrite after a cut.
  std::function<void(Adjust&)> adjust;
  bool differentiable = false;
  /// Inputs whose floating constants set the computation (limits, statistics, caches) and are no weights: training leaves them.
  std::vector<std::size_t> settings = {};
  /// Takes sequences, and values of unknown rank; `infer` of any other operator is asked only when all ranks are known.
  bool sequences = false;
};

/// The entry for a node, or nullptr. Lookup is by (domain, operator) and the graph's opset.
const Operator* find_operator(const Graph& graph, const Node& node);
const Operator* find_operator(std::string_view domain, std::string_view name, std::int64_t opset);
std::vector<const Operator*> all_operators();

/// Adds an entry; used through a file-static object in each operator's file.
struct RegisterOperator {
  explicit RegisterOperator(Operator op);
};

/// Types and shapes of every value, in node order, initializers and inputs included. Unknown operators give outputs with
/// rank_known = false. Throws Error(invalid_input) naming the node where shapes do not fit.
ValueMap infer(const Graph& graph);
/// The same for the body of a control operator: `inputs` stand for the body's own, in order, and what it captures is in `outer`.
ValueMap infer_body(const Graph& body, const std::vector<ValueInfo>& inputs, const ValueMap& outer);
Cost cost(const Graph& graph, const ValueMap& values, const Node& node, const Bindings& bindings);
Cost total_cost(const Graph& graph, const ValueMap& values, const Bindings& bindings);

}  // namespace espalier
