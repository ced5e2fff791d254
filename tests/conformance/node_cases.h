#pragma once
/// The ONNX project's node cases (node_cases.py writes them), run through import, normal form, `infer` and the runner.
#include <filesystem>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace espalier::test {

/// A value of a case: a tensor, a sequence of values, or nothing (an empty optional).
struct CaseValue {
  enum Kind { tensor, sequence, nothing } kind = tensor;
  Tensor data;
  std::vector<CaseValue> elements;
};

struct NodeCase {
  std::string name;
  std::vector<std::string> operators;  ///< of the model's own nodes, "domain::" before those of other domains
  std::vector<std::pair<std::string, CaseValue>> inputs, outputs;
  double rtol = 1e-3, atol = 1e-7;
  std::string unreadable;  ///< why its values are not, where they are of a type that graphs do not have
};
std::vector<NodeCase> read_node_cases(const std::filesystem::path& folder);

struct Outcome {
  enum Kind {
    passed,
    refused,  ///< Error(unsupported) that names a node and its operator, or an element type
    wrong     ///< other values, another shape or type, a crash of an exception, or a valid model called invalid
  } kind = wrong;
  std::string stage;  ///< where it ended: "import", "normal form", "infer", "run", "compare"
  std::string reason;
};
/// Values within rtol 1e-3 (f16, bf16: two units in the last place) and atol 1e-5, or the case's own where it asks for less,
/// integers equal; `infer` must have told each output's type and known lengths rightly.
Outcome run_node_case(const NodeCase& node_case, const std::filesystem::path& folder);
/// The same through TorchScript: the model as it was imported is written as an archive (at `archive`), which LibTorch then runs.
Outcome run_torchscript_case(const NodeCase& node_case, const std::filesystem::path& folder, const std::filesystem::path& archive);

}  // namespace espalier::test
