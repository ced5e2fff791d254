// GPT-2: learned positions, matrices stored as [in, out], queries, keys and values in one.
#include "formats/huggingface/decoder_family.h"

namespace espalier {
namespace {

void gpt2(DecoderShape& m, const HfConfig& config) {
  config.refuse("add_cross_attention");
  m.encoding = Encoding::learned;
  m.norm.kind = Norm::layer;
  m.qkv = LayerShape::Qkv::stacked;
  m.in_out = true;
  m.gated = false;
  m.qkv_bias = m.out_bias = m.mlp_bias = true;
  if (!config.flag("scale_attn_weights", true)) m.attention_scale = 1;
  m.scale_by_layer = config.flag("scale_attn_by_inverse_layer_idx", false);
}

const RegisterDecoder family({.type = "gpt2",
                              .keys = {{"hidden_size", "n_embd"},
                                       {"num_hidden_layers", "n_layer"},
                                       {"num_attention_heads", "n_head"},
                                       {"max_position_embeddings", "n_positions"},
                                       {"intermediate_size", "n_inner"},
                                       {"hidden_act", "activation_function"}},
                              .names = {.base = "transformer.",
                                        .layers = "transformer.h.",
                                        .parts = {{"input_layernorm", "ln_1"},
                                                  {"self_attn.qkv_proj", "attn.c_attn"},
                                                  {"self_attn.o_proj", "attn.c_proj"},
                                                  {"post_attention_layernorm", "ln_2"},
                                                  {"mlp.up_proj", "mlp.c_fc"},
                                                  {"mlp.down_proj", "mlp.c_proj"}},
                                        .whole = {{"model.embed_tokens", "transformer.wte"},
                                                  {"model.embed_positions", "transformer.wpe"},
                                                  {"model.norm", "transformer.ln_f"}},
                                        .unread = {".attn.bias", ".attn.masked_bias"}},
                              .epsilon_key = "layer_norm_epsilon",
                              .epsilon = 1e-5,
                              .tied = true,
                              .activation = "gelu_new",
                              .feed_forward = 4,
                              .differ = gpt2});

}  // namespace
}  // namespace espalier
