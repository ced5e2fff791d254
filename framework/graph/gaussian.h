#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "graph/graph.h"

namespace espalier {

/// An f32 tensor of normal numbers with mean 0: splitmix64 and Box–Muller, the same for one seed wherever it runs.
Tensor gaussian(std::vector<std::int64_t> shape, double deviation, std::uint64_t seed);

/// A seed for one thing among many: what is drawn for it does not depend on what else is drawn.
std::uint64_t seed_for(std::uint64_t seed, std::string_view name);

}  // namespace espalier
