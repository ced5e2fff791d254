#pragma once
/// From the graph's operators to TorchScript's source, one registered phrase for each of them.
#include <functional>
#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "graph/op.h"

namespace espalier::torchscript {

/// A module: the source of its method `forward`, and the tensors that it reads.
struct Script {
  struct Stored {
    std::vector<std::string> path;  ///< the modules it lies in, from the outside, and its own name
    Tensor tensor;
    bool turned = false;     ///< a linear layer's: the module holds it as [out, in]
    bool parameter = false;  ///< else a buffer
  };
  std::string source;
  std::vector<Stored> tensors;
};

class ScriptWriter;

/// One node under way, as its phrase sees it.
class NodeScript {
 public:
  NodeScript(ScriptWriter& writer, const Graph& graph, const Node& node, const ValueMap& values)
      : node(node), graph(graph), view_{graph, node, values}, writer_(writer) {}

  const Node& node;
  const Graph& graph;

  bool has(std::size_t i) const { return view_.has(i); }
  /// The name of a variable that holds input i.
  std::string in(std::size_t i) const;
  std::string in_or_none(std::size_t i) const { return has(i) ? in(i) : "None"; }
  const ValueInfo& info(std::size_t i) const { return view_.in(i); }
  std::size_t rank(std::size_t i) const { return view_.in(i).shape.size(); }
  bool floating(std::size_t i) const { return is_floating(view_.in(i).dtype); }
  /// The elements of integer input i as expressions, one each; a known element is its number.
  std::vector<std::string> integers(std::size_t i) const;
  /// The same where all are numbers.
  std::optional<std::vector<std::int64_t>> known(std::size_t i) const { return view_.integers(i); }
  const Tensor* constant(std::size_t i) const { return view_.constant(i); }
  std::size_t axis(std::string_view attribute, std::int64_t fallback, std::size_t rank) const {
    return view_.axis(attribute, fallback, rank);
  }
  std::int64_t opset() const { return graph.opset(node.domain); }
  /// The initializer that input i is the transpose of, as a variable that holds it untransposed; nothing where it is none.
  std::optional<std::string> transposed(std::size_t i) const;
  /// Whether input i is the weight of linear layers alone and is held as [out, in].
  bool turned(std::size_t i) const;
  /// The length of an axis of input i: a number where it is known.
  std::string length(std::size_t i, std::size_t axis) const;
  /// Output i's lengths as expressions; nothing where one follows from values that are not known.
  std::optional<std::vector<std::string>> lengths_out(std::size_t i) const;
  const ValueInfo& info_out(std::size_t i) const { return view_.out(i); }

  /// A new variable that holds this expression.
  std::string let(const std::string& expression, const std::string& hint = {}) const;
  /// The same of a declared type ("List[int]").
  std::string let_typed(const std::string& type, const std::string& expression) const;
  void give(const std::string& expression) { give(0, expression); }
  void give(std::size_t output, const std::string& expression);
  /// Refuses where somebody reads an output other than the first `count`.
  void only(std::size_t count) const;
  [[noreturn]] void refuse(const std::string& why) const;

 private:
  NodeView view_;
  ScriptWriter& writer_;
};

using Phrase = void (*)(NodeScript&);
struct RegisterPhrase {
  RegisterPhrase(std::initializer_list<const char*> operators, Phrase phrase);
};
Phrase find_phrase(const std::string& op);

/// "[1, batch, 3]".
std::string list_text(const std::vector<std::string>& items);
std::string list_text(const std::vector<std::int64_t>& items);
/// A number as TorchScript writes a float.
std::string number_text(double value);
std::string flag_text(bool value);
/// LibTorch's number of an element type; nothing for those that its kernels do not compute with.
std::optional<int> type_number(DType type);

/// Writes a graph down. `parameters`: names of the initializers that training may change. Throws Error(unsupported) naming the
/// first node that has no phrase, or whose phrase does not cover it.
Script write_script(const Graph& graph, const std::set<std::string>& parameters);

}  // namespace espalier::torchscript
