#include <fmt/format.h>

#include "graph/passes/pattern.h"

namespace espalier {
namespace {

/// The runner knows the types that graphs declare, not what type a floating value inside of it stands for.
std::int64_t run(Graph& graph, std::vector<std::string>& notes) {
  std::vector<std::pair<std::size_t, DType>> found;
  {
    const Pattern p(graph);
    for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
      const Node& node = graph.nodes[i];
      if (node.op != "CastLike" || !node.domain.empty() || node.inputs.size() != 2) continue;
      if (const DType type = p.dtype(node.inputs[1]); type != DType::undefined) found.emplace_back(i, type);
    }
  }
  for (const auto& [index, type] : found) {
    Node& node = graph.nodes[index];
    auto attributes = node.attributes;
    attributes["to"] = static_cast<std::int64_t>(type);
    become(node, "Cast", {node.inputs[0]}, std::move(attributes));
  }
  if (!found.empty()) notes.push_back(fmt::format("wrote {} × CastLike as Cast", found.size()));
  return static_cast<std::int64_t>(found.size());
}

const RegisterPass registered(15, {"cast-like", "writes CastLike as the Cast to the type that is known", run});

}  // namespace
}  // namespace espalier
