#pragma once
#include "graph/graph.h"

namespace espalier {

/// Graph rewrites for causal language models (task "causal-lm": input_ids, attention_mask, position_ids → logits).

/// The graph's task is "causal-lm".
bool is_causal_lm(const Graph& graph);
/// It has past_key_values inputs already.
bool has_past_inputs(const Graph& graph);
/// Positions that every table of the graph covers, rotary or looked up by position_ids; 0 when it has none.
std::int64_t position_limit(const Graph& graph);

/// Adds past_key_values.N.key|value [batch, kv_heads, past, head] inputs and present.N.key|value outputs, N counting Attention
/// nodes in order; attention_mask becomes [batch, past + sequence]. Throws Error(invalid_input) when the graph has no causal
/// Attention.
Graph with_kv_cache(const Graph& graph);
/// The same graph whose logits are those of the last position only, [batch, 1, vocabulary].
Graph last_position_only(const Graph& graph);

/// Per cached attention: heads and head size, in order of N.
struct CacheShape {
  std::int64_t kv_heads, head_size;
};
std::vector<CacheShape> cache_shapes(const Graph& graph);

}  // namespace espalier
