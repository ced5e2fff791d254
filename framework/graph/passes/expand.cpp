#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "graph/passes/pattern.h"

namespace espalier {
namespace {

/// The shape of an elementwise result; nothing where it is not known.
std::optional<Shape> broadcast(const Pattern& p, const Node& node, std::size_t slot, const Shape& instead) {
  std::vector<Shape> shapes;
  std::size_t rank = 0;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    const Shape* shape = i == slot ? &instead : p.shape(node.inputs[i]);
    if (!shape) return std::nullopt;
    shapes.push_back(*shape);
    rank = std::max(rank, shape->size());
  }
  Shape out(rank, Dim(1));
  for (const Shape& shape : shapes)
    for (std::size_t i = 0; i < shape.size(); ++i) {
      Dim& length = out[rank - shape.size() + i];
      if (shape[i] == Dim(1) || shape[i] == length) continue;
      if (length != Dim(1)) return std::nullopt;
      length = shape[i];
    }
  return out;
}

/// Operators that broadcast would have done what an Expand before them does.
std::int64_t run(Graph& graph, std::vector<std::string>& notes) {
  static const std::set<std::string, std::less<>> broadcasts{
      "Add", "Sub", "Mul",   "Div",  "Max",     "Min",         "Where",          "And",
      "Or",  "Xor", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Pow"};
  struct Found {
    std::size_t node, slot;
    std::string value;
  };
  std::vector<Found> found;
  {
    const Pattern p(graph);
    for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
      const Node& node = graph.nodes[i];
      if (!node.domain.empty() || !broadcasts.contains(node.op)) continue;
      const Shape* out = p.shape(node.output(0));
      if (!out) continue;
      for (std::size_t slot = 0; slot < node.inputs.size(); ++slot) {
        const Node* expand = p.made_by(node.inputs[slot], "Expand");
        const Shape* in = expand ? p.shape(expand->inputs[0]) : nullptr;
        if (!in || broadcast(p, node, slot, *in) != *out) continue;
        found.push_back({i, slot, expand->inputs[0]});
        break;  // another Expand of the same node might have been what made the shape
      }
    }
  }
  for (const Found& one : found) graph.nodes[one.node].inputs[one.slot] = one.value;
  if (found.empty()) return 0;
  remove_dead(graph);
  notes.push_back(fmt::format("{} × Expand went before an operator that broadcasts", found.size()));
  return static_cast<std::int64_t>(found.size());
}

const RegisterPass registered(21, {"expand", "removes an Expand where the operator that reads it broadcasts", run});

}  // namespace
}  // namespace espalier
