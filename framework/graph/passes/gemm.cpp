#include <fmt/format.h>

#include "graph/passes/pattern.h"

namespace espalier {
namespace {

/// Add(MatMul(x, W), bias) of rank 2, bias a constant row.
std::int64_t run(Graph& graph, std::vector<std::string>& notes) {
  std::int64_t fused = 0;
  {
    const Pattern p(graph);
    for (auto& node : graph.nodes) {
      if (node.op != "Add" || !node.domain.empty() || node.inputs.size() != 2) continue;
      for (std::size_t i = 0; i < 2; ++i) {
        const auto* product = p.made_by(node.inputs[i], "MatMul");
        const auto* bias = p.graph.initializer(node.inputs[1 - i]);
        if (!product || !bias || !p.read_once(node.inputs[i])) continue;
        const auto* x = p.shape(product->input(0));
        const auto* w = p.shape(product->input(1));
        if (!x || !w || x->size() != 2 || w->size() != 2 || !is_floating(bias->dtype)) continue;
        const bool row =
            (bias->shape.size() == 1 || (bias->shape.size() == 2 && bias->shape[0] == 1)) && (*w)[1] == Dim(bias->shape.back());
        if (!row) continue;
        become(node, "Gemm", {product->inputs[0], product->inputs[1], node.inputs[1 - i]}, {});
        ++fused;
        break;
      }
    }
  }
  if (fused == 0) return 0;
  remove_dead(graph);
  notes.push_back(fmt::format("fused {} × MatMul and Add of rank 2 into Gemm", fused));
  return fused;
}

const RegisterPass registered(61, {"gemm", "fuses MatMul and a bias of rank 2 into Gemm", run});

}  // namespace
}  // namespace espalier
