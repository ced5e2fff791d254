// BLOOM: ALiBi, a norm behind the embedding, queries, keys and values of each head side by side.
#include "formats/huggingface/decoder_family.h"

namespace espalier {
namespace {

void bloom(DecoderShape& m, const HfConfig& config) {
  m.encoding = Encoding::alibi;
  m.norm.kind = Norm::layer;
  m.embedding_norm = true;
  m.qkv = LayerShape::Qkv::by_head;
  m.qkv_bias = m.out_bias = m.mlp_bias = true;
  m.gated = false;
  m.activation = Activation::gelu_tanh;
  if (config.flag("apply_residual_connection_post_layernorm", false)) m.residual = LayerShape::Residual::normed;
}

const RegisterDecoder family({.type = "bloom",
                              .keys = {{"hidden_size", "n_embed"},
                                       {"num_hidden_layers", "n_layer"},
                                       {"num_attention_heads", "n_head"},
                                       {"max_position_embeddings", "seq_length"}},
                              .names = {.base = "transformer.",
                                        .layers = "transformer.h.",
                                        .parts = {{"self_attn.qkv_proj", "self_attention.query_key_value"},
                                                  {"self_attn.o_proj", "self_attention.dense"},
                                                  {"mlp.up_proj", "mlp.dense_h_to_4h"},
                                                  {"mlp.down_proj", "mlp.dense_4h_to_h"}},
                                        .whole = {{"model.embed_tokens", "transformer.word_embeddings"},
                                                  {"model.embed_layernorm", "transformer.word_embeddings_layernorm"},
                                                  {"model.norm", "transformer.ln_f"}}},
                              .epsilon_key = "layer_norm_epsilon",
                              .epsilon = 1e-5,
                              .tied = true,
                              .feed_forward = 4,
                              .positions = 2048,
                              .differ = bloom});

}  // namespace
}  // namespace espalier
