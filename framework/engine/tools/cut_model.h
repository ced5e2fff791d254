#pragma once
#include <functional>
#include <set>
#include <string>

#include "graph/tensor_store.h"
#include "prune/selection.h"
#include "sdk/artifact.h"

namespace espalier {

/// What `espalier model cut` asks for.
struct CutRequest {
  SelectionOptions options;
  std::set<std::string> kinds;  ///< channels, heads; empty: whichever of them the model has

  explicit CutRequest(const Json& json);
};

/// The model in normal form without the units whose weights are smallest (prune/magnitude.h). `told` gets sparsity, the parameters
/// in scope, the widths of all groups in scope before and after, and warnings. Throws Error(invalid_input) where nothing can go.
Graph cut_by_magnitude(Graph graph, const CutRequest& request, const TensorStore& store, const std::function<void()>& check,
                       Json& told);

}  // namespace espalier
