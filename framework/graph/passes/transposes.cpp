#include <fmt/format.h>

#include "graph/passes/pattern.h"

namespace espalier {
namespace {

std::int64_t run(Graph& graph, std::vector<std::string>& notes) {
  std::int64_t merged = 0;
  {
    const Pattern p(graph);
    for (auto& node : graph.nodes) {
      if (node.op != "Transpose" || !node.domain.empty()) continue;
      const auto* first = p.made_by(node.inputs[0], "Transpose");
      if (!first) continue;
      const auto inner = p.permutation(*first), outer = p.permutation(node);
      if (inner.size() != outer.size()) continue;
      std::vector<std::int64_t> both;
      for (auto axis : outer) both.push_back(inner[static_cast<std::size_t>(axis)]);
      become(node, "Transpose", {first->inputs[0]}, {{"perm", both}});
      ++merged;
    }
  }
  if (merged == 0) return 0;
  remove_dead(graph);
  notes.push_back(fmt::format("merged {} pairs of Transpose", merged));
  return merged;
}

const RegisterPass registered(30, {"transposes", "merges a Transpose with the one before it", run});

}  // namespace
}  // namespace espalier
