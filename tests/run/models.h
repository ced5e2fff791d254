#pragma once
#include "graph/graph.h"

namespace espalier::test {

struct LanguageModelShape {
  std::int64_t vocabulary = 37, width = 16, heads = 4, kv_heads = 2, layers = 2, hidden = 24, positions = 64;
};
/// A causal language model with grouped-query attention, rotary embeddings and a tied head; weights from a seed.
Graph tiny_language_model(const LanguageModelShape& shape = {}, std::uint64_t seed = 1);

/// A small residual CNN for [n, 1, 12, 12] images: stem, a residual block with a depthwise path, concatenation, pooling, four
/// classes.
Graph residual_network(std::int64_t channels, std::uint64_t seed = 1);

/// Normal numbers from a seed.
Tensor normal(std::vector<std::int64_t> shape, double deviation, std::uint64_t& seed);

}  // namespace espalier::test
