// Attention by products over [batch · heads, positions, size]: the two leading axes are merged, a few nodes run, and they are split
// again. Those nodes do the same on four axes, where batch and heads stay apart: attention is recognised, and heads can be cut.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>

#include "graph/passes/pattern.h"

namespace espalier {
namespace {

/// The two lengths that a merged leading axis is made of.
using Pair = std::array<Dim, 2>;

/// A Reshape that merged them.
struct Merge {
  std::string source;  ///< what was merged
  Pair pair;
  std::vector<std::int64_t> missing;  ///< axes of length 1 that it made besides, counted with both leading axes
};

/// Where `longer` has a 1 that `shorter` lacks; nothing where they differ in more.
std::optional<std::vector<std::int64_t>> inserted_ones(const Shape& shorter, const Shape& longer) {
  std::vector<std::int64_t> at;
  std::size_t next = 2;
  for (std::size_t i = 1; i < longer.size(); ++i) {
    if (next < shorter.size() && shorter[next] == longer[i])
      ++next;
    else if (longer[i] == Dim(1))
      at.push_back(static_cast<std::int64_t>(i) + 1);
    else
      return std::nullopt;
  }
  return next == shorter.size() ? std::optional(at) : std::nullopt;
}

class MergedBatch {
 public:
  explicit MergedBatch(const Pattern& p) : p_(p) {
    for (const Node& node : p.graph.nodes)
      if (auto merge = merged_by(node)) merges_.emplace(node.output(0), std::move(*merge));
    inside_.resize(p.graph.nodes.size());
    // A node may stay only while all that reads it works on four axes, too: one that leaves may take others along.
    std::vector<bool> out(inside_.size(), false);
    for (bool changed = true; changed;) {
      changed = false;
      collect(out);
      for (std::size_t i = 0; i < inside_.size(); ++i) {
        if (!inside_[i] || closed(p.graph.nodes[i])) continue;
        out[i] = true;
        changed = true;
      }
    }
  }

  /// Rewrites the nodes in a copy of the pattern's graph. Returns how many.
  std::int64_t rewrite(Graph& graph) const {
    std::int64_t count = 0;
    std::vector<Node> added;
    for (std::size_t i = 0; i < inside_.size(); ++i) {
      Node& node = graph.nodes[i];
      if (inside_[i]) {
        for (std::string& input : node.inputs)
          if (const auto merge = merges_.find(input); merge != merges_.end()) input = source(graph, added, input, merge->second);
        if (node.op == "Softmax") node.attributes["axis"] = std::int64_t{-1};
        if (node.op == "Transpose") {
          std::vector<std::int64_t> permutation{0};
          for (const std::int64_t axis : p_.permutation(p_.graph.nodes[i])) permutation.push_back(axis + 1);
          node.attributes["perm"] = permutation;
        }
        ++count;
      } else if (splits(p_.graph.nodes[i])) {
        become(node, "Identity", {node.inputs[0]}, {});
      }
    }
    graph.nodes.insert(graph.nodes.end(), added.begin(), added.end());
    if (!added.empty()) graph.sort();
    return count;
  }

 private:
  /// What a merged value was made of, with the axes of length 1 that the Reshape had made besides.
  static std::string source(Graph& graph, std::vector<Node>& added, const std::string& value, const Merge& merge) {
    if (merge.missing.empty()) return merge.source;
    const std::string name = "/" + value + "/Unsqueeze";
    for (const Node& node : added)
      if (node.name == name) return node.outputs[0];
    const std::string axes = graph.fresh(value + ".axes");
    graph.initializers[axes] =
        Tensor::of<std::int64_t>(DType::i64, {static_cast<std::int64_t>(merge.missing.size())}, merge.missing);
    Node node;
    node.op = "Unsqueeze";
    node.name = name;
    node.inputs = {merge.source, axes};
    node.outputs = {graph.fresh(value + ".apart")};
    added.push_back(std::move(node));
    return added.back().outputs[0];
  }

  std::optional<Merge> merged_by(const Node& node) const {
    if (node.op != "Reshape" || !node.domain.empty()) return std::nullopt;
    const Shape *in = p_.shape(node.inputs[0]), *out = p_.shape(node.output(0));
    if (!in || !out || out->size() < 3 || in->size() < 3 || (*in)[0] * (*in)[1] != (*out)[0]) return std::nullopt;
    auto missing = inserted_ones(*in, *out);
    if (!missing || (!missing->empty() && p_.graph.opset() < 13)) return std::nullopt;
    return Merge{node.inputs[0], {(*in)[0], (*in)[1]}, std::move(*missing)};
  }

  /// The pair that a value's leading axis merges, as far as is known by now.
  const Pair* pair_of(const std::string& value) const {
    if (const auto merge = merges_.find(value); merge != merges_.end()) return &merge->second.pair;
    const auto made = made_.find(value);
    return made == made_.end() ? nullptr : &made->second;
  }

  void collect(const std::vector<bool>& out) {
    made_.clear();
    for (std::size_t i = 0; i < inside_.size(); ++i) {
      inside_[i] = false;
      if (out[i]) continue;
      if (const auto pair = can_work_apart(p_.graph.nodes[i])) {
        made_.emplace(p_.graph.nodes[i].output(0), *pair);
        inside_[i] = true;
      }
    }
  }

  std::optional<Pair> can_work_apart(const Node& node) const {
    static const std::set<std::string, std::less<>> elementwise{"Add", "Sub",  "Mul",  "Div",     "Max",  "Min",   "Where", "Neg",
                                                                "Exp", "Cast", "Tanh", "Sigmoid", "Relu", "IsNaN", "Clip"};
    if (!node.domain.empty() || node.outputs.size() != 1) return std::nullopt;
    const Shape* result = p_.shape(node.output(0));
    if (!result || result->size() < 3) return std::nullopt;
    if (node.op == "Softmax") {
      if (!p_.is_last_axis(node.integer("axis", -1), node.inputs[0]) || p_.graph.opset() < 13) return std::nullopt;
    } else if (node.op == "Transpose") {
      const auto permutation = p_.permutation(node);
      if (permutation.empty() || permutation[0] != 0) return std::nullopt;
    } else if (node.op != "MatMul" && !elementwise.contains(node.op)) {
      return std::nullopt;
    }
    std::optional<Pair> pair;
    for (const std::string& input : node.inputs) {
      if (input.empty()) continue;
      if (const Pair* of = pair_of(input)) {
        if (p_.shape(input)->size() != result->size() || (pair && *pair != *of)) return std::nullopt;
        pair = *of;
        continue;
      }
      // Broadcast along the axes behind the merged one only.
      const Shape* shape = p_.shape(input);
      if (!shape || shape->size() >= result->size()) return std::nullopt;
    }
    return pair;
  }

  /// Gives back what a merge had taken together.
  bool splits(const Node& node) const {
    if (node.op != "Reshape" || !node.domain.empty()) return false;
    const auto made = made_.find(node.inputs[0]);
    if (made == made_.end()) return false;
    const Shape *in = p_.shape(node.inputs[0]), *out = p_.shape(node.output(0));
    return in && out && out->size() == in->size() + 1 && (*out)[0] == made->second[0] && (*out)[1] == made->second[1] &&
           std::equal(in->begin() + 1, in->end(), out->begin() + 2);
  }

  bool closed(const Node& node) const {
    const std::string& value = node.output(0);
    if (p_.exposed(value)) return false;
    const auto& readers = p_.uses.readers_of(value);
    return !readers.empty() && std::all_of(readers.begin(), readers.end(), [&](const Uses::Reader& reader) {
      return inside_[reader.node] || (reader.input == 0 && splits(p_.graph.nodes[reader.node]));
    });
  }

  const Pattern& p_;
  std::map<std::string, Merge> merges_;  // by merged value
  std::map<std::string, Pair> made_;     // outputs of nodes inside
  std::vector<bool> inside_;
};

std::int64_t run(Graph& graph, std::vector<std::string>& notes) {
  Graph copy = graph;
  const std::int64_t count = [&] {
    const Pattern p(graph);
    return MergedBatch(p).rewrite(copy);
  }();
  if (count == 0) return 0;
  graph = std::move(copy);
  remove_dead(graph);
  notes.push_back(fmt::format("{} nodes keep batch and heads apart", count));
  return count;
}

const RegisterPass registered(26, {"merged-batch",
                                   "lets nodes between a Reshape that merges two leading axes and one that splits them "
                                   "work on both",
                                   run});

}  // namespace
}  // namespace espalier
