#pragma once
/// What the operator table can do, as the page docs/operators.md shows it.
#include <string>
#include <vector>

#include "node_cases.h"

namespace espalier::test {

struct Judged {
  const NodeCase* node_case;
  Outcome outcome;
  Outcome torchscript;  ///< through an archive and LibTorch
};

/// Markdown: a line for each operator of the table and for each one of ONNX that has a case but is not in it. Counted are cases
/// whose model is that one node.
std::string operator_table(const std::vector<Judged>& judged);

}  // namespace espalier::test
