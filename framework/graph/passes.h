#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace espalier {

/// What one pass did to one graph.
struct PassReport {
  std::string pass;
  std::int64_t changes = 0;
  std::int64_t nodes_before = 0, nodes_after = 0;
  std::vector<std::string> notes;  ///< at most a few examples, "fused 61 × Pow/ReduceMean/… into RMSNormalization"
};

struct Pass {
  std::string name;  ///< "constant-folding"
  std::string summary;
  std::function<std::int64_t(Graph&, std::vector<std::string>& notes)> run;  ///< number of changes
};

/// All passes in the order in which they are run; one file each in graph/passes/. Every pass keeps what the graph computes.
const std::vector<Pass>& all_passes();
struct RegisterPass {
  RegisterPass(int order, Pass pass);
};

/// Runs the named passes (all when empty) until none changes anything, at most `rounds` times.
std::vector<PassReport> optimize(Graph& graph, const std::vector<std::string>& names = {}, int rounds = 8);

/// What importers give: the operators that exporters spelled out, in the newest opset, with everything kept that training would
/// change (batch norms stay by themselves) and nothing that suits one runtime alone (layouts, Gemm).
std::vector<PassReport> normal_form(Graph& graph);

/// Replaces a value everywhere it is read, and as a graph output.
void replace_uses(Graph& graph, const std::string& from, const std::string& to);
/// Removes nodes and initializers that no output needs; returns how many went.
std::int64_t remove_dead(Graph& graph);

}  // namespace espalier
