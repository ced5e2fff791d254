#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "run/metric.h"
#include "toy_model.h"

namespace espalier::test {

std::vector<CoupledGroup> groups_of(const Graph& graph);

/// The group that touches this tensor, and not the whole residual stream.
const CoupledGroup& group_with(const std::vector<CoupledGroup>& groups, const std::string& tensor);

/// A metric as a stage.
Scores score(TestContext& context, const std::string& metric, const Json& params, const Artifact& model,
             const Artifact* data = nullptr);

/// Images [count, 3, 8, 8] of noise under "image", and classes of ten under "labels".
Artifact toy_images(TestContext& context, std::int64_t count, std::uint64_t seed);

}  // namespace espalier::test
