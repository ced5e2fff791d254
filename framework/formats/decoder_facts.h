#pragma once
/// What a graph shows of the decoder-only language model that it is: lengths from its weights, settings from its nodes. No names
/// are looked at but those of its inputs and outputs. Read to guess a config.json, which match_graphs() then proves or refutes: a
/// graph that is something else gives facts that are of no use, not an error for each of its oddities.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace espalier {

/// Rotary frequencies base^(-2i/size) / factor.
struct RotaryRule {
  double base = 10000, factor = 1;
};
/// The rule behind tables of cosines and sines [positions, size/2] in f32; nothing when they follow none.
std::optional<RotaryRule> rotary_rule(const Tensor& cosines, const Tensor& sines);

struct DecoderFacts {
  std::int64_t hidden = 0, vocabulary = 0, positions = 0, rotary_size = 0;
  std::vector<std::int64_t> heads, kv_heads, head_size;  ///< by layer
  std::vector<std::int64_t> windows;                     ///< by layer: positions that a query sees; 0: all
  bool tied = false, scaled_embedding = false;
  bool layer_norm = false;  ///< LayerNormalization, else RMSNormalization
  double epsilon = 1e-6;    ///< of the last norm
  enum class QueryNorm { none, head, width } query_norm = QueryNorm::none;
  bool qkv_bias = false, out_bias = false, mlp_bias = false;
  std::string activation = "silu";  ///< as config.json names it
  double attention_scale = 0, attention_softcap = 0, final_softcap = 0;
  std::int64_t experts = 0, experts_used = 0;         ///< of the first mixture
  std::vector<std::int64_t> mixtures, mixtures_used;  ///< the same of each, in order
  std::optional<RotaryRule> rotary, local;            ///< local: of layers with a window, where they have their own

  std::int64_t layers() const { return static_cast<std::int64_t>(heads.size()); }
};

/// Throws Error(unsupported) for a graph that is no language model, that has a past, or whose attention is of a form that no
/// decoder is built with; names the node.
DecoderFacts decoder_facts(const Graph& graph);

}  // namespace espalier
