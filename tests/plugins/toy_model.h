#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "test_context.h"

namespace espalier::test {

struct ToySize {
  std::int64_t layers = 2, hidden = 32, heads = 4, kv_heads = 2, head = 8, ffn = 48, vocabulary = 64, positions = 64;
  std::int64_t experts = 0, used = 2;  ///< a mixture in place of every feed-forward layer; 0: none
};

/// A causal language model with grouped-query attention, a gated feed-forward layer and a tied head; random weights from a seed.
Graph toy_language_model(const ToySize& size = {}, std::uint64_t seed = 1);

/// A residual network over [batch, 3, 8, 8]: convolutions, batch norms in inference form, one residual sum, a linear head.
Graph toy_residual_network(std::uint64_t seed = 1);

/// Tokens of a small language that can be learned: the next token follows from the last one, except for `noise` of them.
std::vector<std::int32_t> toy_tokens(std::int64_t count, std::int64_t vocabulary, double noise, std::uint64_t seed);
Artifact toy_dataset(TestContext& context, const std::vector<std::int32_t>& tokens, std::int64_t sequence);
Artifact toy_dataset(TestContext& context, std::int64_t windows, std::int64_t sequence, std::uint64_t seed);

/// The tokenizer digest that toy model and data claim.
std::string toy_tokenizer_digest();

/// Mean cross-entropy of the model on the data set, in f64 when `exact`.
double loss_of(const Graph& graph, const TestContext& context, const Artifact& data, bool exact = false);

}  // namespace espalier::test
