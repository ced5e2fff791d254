#include <fmt/format.h>

#include "graph/passes/normalization.h"

namespace espalier {
namespace {

struct LayerNorm {
  std::string x, gain, bias;
  double epsilon;
};

/// gain · (x - mean(x)) / sqrt(var(x) + epsilon), made by `node`.
std::optional<LayerNorm> match_scaled(const Pattern& p, const Node& node) {
  if (node.op != "Mul" || !node.domain.empty() || node.inputs.size() != 2) return std::nullopt;
  for (std::size_t i = 0; i < 2; ++i) {
    const auto norm = match_root_mean_square(p, node.inputs[i]);
    if (!norm) continue;
    const auto* centred = p.made_by(norm->centred, "Sub");
    const auto* mean = centred ? p.made_by(centred->input(1), "ReduceMean") : nullptr;
    if (!mean || !p.is_last_mean(*mean) || mean->inputs[0] != centred->input(0)) continue;
    const auto& x = p.past_casts(centred->input(0));
    const bool type = p.dtype(x) == p.dtype(node.inputs[i]);
    if (type && is_row_for(p, node.inputs[1 - i], x)) return LayerNorm{x, node.inputs[1 - i], "", norm->epsilon};
  }
  return std::nullopt;
}

std::optional<LayerNorm> match_shifted(const Pattern& p, const Node& node) {
  if (node.op != "Add" || !node.domain.empty() || node.inputs.size() != 2) return std::nullopt;
  for (std::size_t i = 0; i < 2; ++i) {
    const auto* scaled = p.made_by(node.inputs[i], "Mul");
    if (!scaled) continue;
    auto norm = match_scaled(p, *scaled);
    if (!norm || !is_row_for(p, node.inputs[1 - i], norm->x)) continue;
    norm->bias = node.inputs[1 - i];
    return norm;
  }
  return std::nullopt;
}

std::int64_t run(Graph& graph, std::vector<std::string>& notes) {
  if (graph.opset() < 17) return 0;
  std::int64_t fused = 0;
  for (const bool with_bias : {true, false}) {
    std::int64_t now = 0;
    const Pattern p(graph);
    for (auto& node : graph.nodes) {
      const auto norm = with_bias ? match_shifted(p, node) : match_scaled(p, node);
      if (!norm) continue;
      std::vector<std::string> inputs{norm->x, norm->gain};
      if (with_bias) inputs.push_back(norm->bias);
      // The pattern still reads this graph: a node that was rewritten matches nothing any more.
      become(node, "LayerNormalization", inputs, {{"axis", std::int64_t{-1}}, {"epsilon", norm->epsilon}});
      ++now;
    }
    if (now > 0) remove_dead(graph);
    fused += now;
  }
  if (fused > 0)
    notes.push_back(fmt::format("fused {} × (x - mean(x)) / sqrt(var(x) + epsilon) · gain + bias into LayerNormalization", fused));
  return fused;
}

const RegisterPass registered(50, {"layer-norm", "fuses exploded layer norms into LayerNormalization", run});

}  // namespace
}  // namespace espalier
