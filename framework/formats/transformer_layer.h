#pragma once
/// One layer of a transformer: attention and a feed-forward layer around a residual stream. What sets one family of models apart
/// from another is data, so that every importer builds with the same code.
///
/// Names in the graph are one scheme for all families, Hugging Face's for LLaMA where that has the part, so that a recipe's scopes
/// mean the same in each: LAYER.self_attn.{q,k,v,o}_proj, LAYER.mlp.{gate,up,down}_proj, LAYER.input_layernorm, …
#include <cstdint>
#include <string>

#include "formats/model_writer.h"

namespace espalier {

/// How a model knows where in the text it is.
enum class Encoding {
  rotary,   ///< queries and keys are turned (Su et al., 2021)
  learned,  ///< a table is added to the embedding
  alibi,    ///< scores fall with the distance, head by head (Press et al., 2022)
};

struct LayerShape {
  std::int64_t hidden = 0, feed_forward = 0, heads = 0, kv_heads = 0, head_size = 0;
  NormShape norm;
  enum class Placement {
    before,  ///< of attention and of the feed-forward layer
    after,   ///< of both, before the residual sum (OLMo 2)
    around,  ///< before and after (Gemma 2)
    last,    ///< of both, after the residual sum (BERT)
  } placement = Placement::before;
  enum class Residual {
    sequential,                       ///< x + attention, then + feed-forward
    normed,                           ///< the same, around what the norms gave (BLOOM)
    parallel,                         ///< x + attention + feed-forward, both of x, each with a norm of its own (GPT-NeoX)
    parallel_shared,                  ///< the same with one norm for both (GPT-J)
  } residual = Residual::sequential;  ///< all but the first with norms before
  enum class QueryNorm {
    none,
    head,   ///< queries and keys, over each head (Qwen 3)
    width,  ///< over all heads together (OLMo 2)
  } query_norm = QueryNorm::none;
  Activation activation = Activation::silu;
  bool gated = true;  ///< down(act(gate) · up), else down(act(up))
  bool qkv_bias = false, out_bias = false, mlp_bias = false;

  // How the file has the weights.
  enum class Qkv {
    separate,
    stacked,  ///< self_attn.qkv_proj: all queries, all keys, all values
    by_head,  ///< the same, for each key head its queries, itself, its values
  } qkv = Qkv::separate;
  bool fused_gate_up = false;  ///< mlp.gate_up_proj, one after the other
  bool in_out = false;         ///< matrices as [in, out] (GPT-2)
  bool rotary_pairs = false;   ///< what is turned together lies side by side (GPT-J), else in halves of a head

  bool causal = true;
  Encoding encoding = Encoding::rotary;
  std::int64_t rotary_size = 0;  ///< elements of a head that are rotated
  double attention_scale = 0;    ///< 0: 1/√head_size
  bool scale_by_layer = false;   ///< over the layer's number, counted from 1
  double attention_softcap = 0;
  double alibi_scale = 1;      ///< of the biases
  bool alibi_rounded = false;  ///< slopes, positions and biases are rounded to bf16 (Falcon)
  std::int64_t experts = 0, experts_used = 0;
};

/// What all layers read beside the stream.
struct LayerSides {
  std::string mask;       ///< boolean [batch, 1, queries, keys], or f32 biases [batch, heads, queries, keys]
  std::string rotary;     ///< name of the tables
  std::string distances;  ///< alibi: positions of the keys, f32 [batch, 1, 1, keys]
};

/// The nodes of one layer at SITE; `number` counts from 0. Returns the stream after it.
std::string write_layer(ModelWriter& writer, const LayerShape& shape, const LayerSides& sides, const std::string& stream,
                        const Site& site, std::int64_t number);

/// alibi: positions of the keys from attention_mask, as LayerSides wants them.
std::string write_distances(ModelWriter& writer, const std::string& scope, bool rounded);

}  // namespace espalier
