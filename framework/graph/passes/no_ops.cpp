#include <fmt/format.h>

#include <algorithm>

#include "graph/passes/pattern.h"

namespace espalier {
namespace {

/// The input that a node hands through unchanged, or nullptr.
const std::string* passed_through(const Pattern& p, const Node& node) {
  if (!node.domain.empty() || node.inputs.empty() || node.input(0).empty()) return nullptr;
  const auto* in = p.shape(node.inputs[0]);
  const auto* out = p.shape(node.output(0));
  const bool same_shape = in && out && *in == *out;
  if (node.op == "Identity") return &node.inputs[0];
  if (node.op == "Dropout") {
    const bool inference =
        node.input(2).empty() ||
        (p.graph.initializer(node.input(2)) && p.graph.initializer(node.input(2))->integers() == std::vector<std::int64_t>{0});
    const bool masked = !node.output(1).empty();
    return inference && !masked && p.graph.opset() >= 12 ? &node.inputs[0] : nullptr;
  }
  if (node.op == "Cast")
    return p.dtype(node.inputs[0]) != DType::undefined && p.dtype(node.inputs[0]) == p.dtype(node.output(0)) ? &node.inputs[0]
                                                                                                             : nullptr;
  if (node.op == "Reshape" || node.op == "Flatten" || node.op == "Squeeze" || node.op == "Unsqueeze" || node.op == "Expand")
    return same_shape ? &node.inputs[0] : nullptr;
  if (node.op == "Concat") return node.inputs.size() == 1 ? &node.inputs[0] : nullptr;
  if (node.op == "Transpose") {
    const auto perm = p.permutation(node);
    return in && perm.size() == in->size() && std::is_sorted(perm.begin(), perm.end()) ? &node.inputs[0] : nullptr;
  }
  const bool zero = node.op == "Add" || node.op == "Sub", one = node.op == "Mul" || node.op == "Div";
  if ((zero || one) && node.inputs.size() == 2) {
    const bool commutes = node.op == "Add" || node.op == "Mul";
    for (std::size_t i = 0; i < 2; ++i) {
      if (i == 1 && !commutes) break;
      const auto* x = p.shape(node.inputs[i]);
      if (x && out && *x == *out && p.number(node.inputs[1 - i]) == (zero ? 0.0 : 1.0)) return &node.inputs[i];
    }
  }
  return nullptr;
}

std::int64_t run(Graph& graph, std::vector<std::string>& notes) {
  std::vector<std::pair<std::string, std::string>> replace;
  std::map<std::string, int> counts;
  {
    const Pattern p(graph);
    const auto is_border = [&](const std::string& name) {
      return std::any_of(graph.outputs.begin(), graph.outputs.end(), [&](const Value& v) { return v.name == name; });
    };
    std::map<std::string, std::string> stands_for;
    for (const auto& node : graph.nodes) {
      const auto* x = passed_through(p, node);
      if (!x) continue;
      const auto found = stands_for.find(*x);
      const auto source = found == stands_for.end() ? *x : found->second;
      // An output of the graph that is just another name of an input, a constant or another output needs its node.
      if (is_border(node.outputs[0]) && (p.uses.producer_of(source) < 0 || is_border(source))) continue;
      stands_for[node.outputs[0]] = source;
      replace.emplace_back(node.outputs[0], source);
      ++counts[node.op];
    }
  }
  for (std::size_t i = 0; i < replace.size(); ++i) {
    const auto [from, to] = replace[i];
    const bool border = std::any_of(graph.outputs.begin(), graph.outputs.end(), [&](const Value& v) { return v.name == from; });
    replace_uses(graph, from, to);
    if (border)  // the source took the output's name
      for (std::size_t k = i + 1; k < replace.size(); ++k)
        if (replace[k].second == to) replace[k].second = from;
  }
  if (replace.empty()) return 0;
  remove_dead(graph);
  for (const auto& [op, count] : counts) notes.push_back(fmt::format("removed {} × {} that changed nothing", count, op));
  return static_cast<std::int64_t>(replace.size());
}

const RegisterPass registered(20, {"no-ops", "removes nodes that hand a value through unchanged", run});

}  // namespace
}  // namespace espalier
