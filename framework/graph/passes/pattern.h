#pragma once
/// What fusions ask of a graph while they look for a pattern. A pass rewrites the last node of a pattern in place and leaves the
/// rest to remove_dead(), so that values which somebody else reads stay.
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "graph/op.h"
#include "graph/passes.h"

namespace espalier {

class Pattern {
 public:
  explicit Pattern(const Graph& graph);

  /// The node that makes a value, when it is of that operator (any of ai.onnx when empty); else nullptr.
  const Node* made_by(const std::string& value, std::string_view op = {}) const;
  /// A floating constant all of whose elements are one number.
  std::optional<double> number(const std::string& value) const;
  /// One reader, and neither an output of the graph nor read by the body of an If or Loop.
  bool read_once(const std::string& value) const;
  bool exposed(const std::string& value) const { return exposed_.contains(value); }  ///< such an output, or read by such a body
  /// Shape of a value; nullptr when not known.
  const Shape* shape(const std::string& value) const;
  DType dtype(const std::string& value) const;
  /// Input `node` has besides `value`, and the slot of `value`; for operators of two inputs.
  const std::string* other(const Node& node, const std::string& value) const;
  /// For an operator of two inputs: (x, c) where c is a constant number.
  std::optional<std::pair<std::string, double>> with_number(const Node& node) const;
  /// The value with Cast nodes above it skipped.
  const std::string& past_casts(const std::string& value) const;
  /// Axes of a reduction, Squeeze, … (attribute or input 1), non-negative; nothing when not known.
  std::optional<std::vector<std::int64_t>> axes(const Node& node) const;
  /// A mean over the last axis that keeps it.
  bool is_last_mean(const Node& node) const;
  bool is_last_axis(std::int64_t axis, const std::string& value) const;
  std::vector<std::int64_t> permutation(const Node& transpose) const;

  const Graph& graph;
  const ValueMap values;
  const Uses uses;

 private:
  std::set<std::string> exposed_;
};

/// A new operator in place of a node; name and outputs stay.
void become(Node& node, std::string op, std::vector<std::string> inputs, std::map<std::string, Attribute> attributes);

}  // namespace espalier
