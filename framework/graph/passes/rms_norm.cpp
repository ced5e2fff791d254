#include <fmt/format.h>

#include "graph/passes/normalization.h"

namespace espalier {
namespace {

std::int64_t run(Graph& graph, std::vector<std::string>& notes) {
  if (graph.opset() < 23) return 0;
  std::int64_t fused = 0;
  {
    const Pattern p(graph);
    for (auto& node : graph.nodes) {
      if (node.op != "Mul" || !node.domain.empty() || node.inputs.size() != 2) continue;
      for (std::size_t i = 0; i < 2; ++i) {
        const auto norm = match_root_mean_square(p, node.inputs[i]);
        if (!norm || !is_row_for(p, node.inputs[1 - i], norm->x)) continue;
        // What is centred first is a layer norm, which its own pass takes.
        const auto* centred = p.made_by(norm->centred, "Sub");
        if (const auto* mean = centred ? p.made_by(centred->input(1), "ReduceMean") : nullptr;
            mean && mean->input(0) == centred->input(0))
          continue;
        become(node, "RMSNormalization", {norm->x, node.inputs[1 - i]}, {{"axis", std::int64_t{-1}}, {"epsilon", norm->epsilon}});
        ++fused;
        break;
      }
    }
  }
  if (fused == 0) return 0;
  remove_dead(graph);
  notes.push_back(fmt::format("fused {} × x / sqrt(mean(x²) + epsilon) · gain into RMSNormalization", fused));
  return fused;
}

const RegisterPass registered(51, {"rms-norm", "fuses exploded RMS norms into RMSNormalization", run});

}  // namespace
}  // namespace espalier
