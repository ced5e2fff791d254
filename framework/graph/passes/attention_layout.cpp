#include <fmt/format.h>

#include "graph/passes/pattern.h"

namespace espalier {
namespace {

const std::vector<std::int64_t> heads_forward{0, 2, 1, 3};  // its own inverse

/// Transpose(Reshape(x)) that splits [batch, positions, heads · size] into [batch, heads, positions, size] → x.
std::optional<std::string> match_split(const Pattern& p, const std::string& value) {
  const auto* transpose = p.made_by(value, "Transpose");
  const auto* reshape =
      transpose && p.permutation(*transpose) == heads_forward ? p.made_by(transpose->inputs[0], "Reshape") : nullptr;
  const auto* packed = reshape ? p.shape(reshape->inputs[0]) : nullptr;
  const auto* split = reshape ? p.shape(reshape->outputs[0]) : nullptr;
  if (!packed || !split || packed->size() != 3 || split->size() != 4 || !(*split)[2].known() || !(*split)[3].known())
    return std::nullopt;
  const bool fits = (*packed)[0] == (*split)[0] && (*packed)[1] == (*split)[1] && (*packed)[2] == (*split)[2] * (*split)[3];
  return fits ? std::optional(reshape->inputs[0]) : std::nullopt;
}

/// An input of the attention: split heads, turned by a rotary embedding or not.
struct Operand {
  std::string packed;
  const Node* rotary = nullptr;
  std::int64_t heads = 0;
};

std::optional<Operand> match_operand(const Pattern& p, const std::string& value) {
  const auto* rotary = p.made_by(value, "RotaryEmbedding");
  const auto& inner = rotary ? rotary->inputs[0] : value;
  const auto packed = match_split(p, inner);
  return packed ? std::optional(Operand{*packed, rotary, (*p.shape(inner))[1].value()}) : std::nullopt;
}

struct Match {
  std::size_t attention, joined;  ///< nodes: the attention, and the Reshape that joins its heads again
  std::vector<Operand> operands;
};

std::optional<Match> match(const Pattern& p, const Graph& graph, std::size_t index) {
  const auto& node = graph.nodes[index];
  if (node.op != "Reshape" || !node.domain.empty()) return std::nullopt;
  const auto* back = p.made_by(node.inputs[0], "Transpose");
  const auto* attention = back && p.permutation(*back) == heads_forward ? p.made_by(back->inputs[0], "Attention") : nullptr;
  if (!attention || !p.read_once(back->inputs[0]) || !p.read_once(node.inputs[0])) return std::nullopt;
  if (attention->outputs.size() != 1 || !attention->input(4).empty()) return std::nullopt;
  const auto* y = p.shape(attention->outputs[0]);
  const auto* joined = p.shape(node.outputs[0]);
  if (!y || !joined || y->size() != 4 || joined->size() != 3) return std::nullopt;
  if ((*joined)[0] != (*y)[0] || (*joined)[1] != (*y)[2] || (*joined)[2] != (*y)[1] * (*y)[3]) return std::nullopt;
  Match found{static_cast<std::size_t>(attention - graph.nodes.data()), index, {}};
  for (std::size_t slot = 0; slot < 3; ++slot) {
    auto operand = match_operand(p, attention->inputs[slot]);
    if (!operand) return std::nullopt;
    found.operands.push_back(std::move(*operand));
  }
  return found;
}

std::int64_t run(Graph& graph, std::vector<std::string>& notes) {
  if (graph.opset() < 23) return 0;
  std::vector<Match> matches;
  std::vector<Node> rotaries;
  {
    const Pattern p(graph);
    for (std::size_t i = 0; i < graph.nodes.size(); ++i)
      if (auto found = match(p, graph, i)) matches.push_back(std::move(*found));
    for (auto& found : matches)
      for (auto& operand : found.operands) {
        if (!operand.rotary) continue;
        Node rotary = *operand.rotary;
        rotary.name += "/packed";
        rotary.inputs[0] = operand.packed;
        rotary.outputs[0] = graph.fresh(rotary.outputs[0] + ".packed");
        rotary.attributes["num_heads"] = operand.heads;
        operand.packed = rotary.outputs[0];
        rotaries.push_back(std::move(rotary));
      }
  }
  if (matches.empty()) return 0;
  for (const auto& found : matches) {
    auto attributes = graph.nodes[found.attention].attributes;
    attributes["q_num_heads"] = found.operands[0].heads;
    attributes["kv_num_heads"] = found.operands[1].heads;
    auto inputs = graph.nodes[found.attention].inputs;
    for (std::size_t slot = 0; slot < 3; ++slot) inputs[slot] = found.operands[slot].packed;
    become(graph.nodes[found.joined], "Attention", std::move(inputs), std::move(attributes));
  }
  graph.nodes.insert(graph.nodes.end(), rotaries.begin(), rotaries.end());
  graph.sort();
  remove_dead(graph);
  notes.push_back(fmt::format("took the Reshape and Transpose nodes around {} × Attention into it", matches.size()));
  return static_cast<std::int64_t>(matches.size());
}

const RegisterPass registered(54, {"attention-layout", "lets Attention split and join the heads itself", run});

}  // namespace
}  // namespace espalier
