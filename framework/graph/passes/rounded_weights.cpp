#include "graph/rounded_weights.h"

#include <fmt/format.h>

#include "graph/passes.h"

namespace espalier {
namespace {

std::int64_t run(Graph& graph, std::vector<std::string>& notes) {
  const auto frozen = static_cast<std::int64_t>(freeze_rounded_weights(graph).size());
  if (frozen > 0) notes.push_back(fmt::format("stored {} weights as the codes that they are rounded to", frozen));
  return frozen;
}

const RegisterPass registered(28,
                              {"rounded-weights", "stores weights that were trained under their rounding as integer codes", run});

}  // namespace
}  // namespace espalier
