#include "graph/passes.h"

namespace espalier {
namespace {

std::int64_t run(Graph& graph, std::vector<std::string>& notes) {
  const auto removed = remove_dead(graph);
  if (removed > 0) notes.push_back("removed " + std::to_string(removed) + " nodes and constants that no output needs");
  return removed;
}

const RegisterPass registered(90, {"dead-code", "removes nodes and constants that no output needs", run});

}  // namespace
}  // namespace espalier
