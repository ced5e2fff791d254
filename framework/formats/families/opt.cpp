// OPT: learned positions behind two rows that no text uses, norms before or (350m) behind, there with narrow tokens, too.
#include "formats/huggingface/decoder_family.h"

namespace espalier {
namespace {

void opt(DecoderShape& m, const HfConfig& config) {
  config.refuse("layer_norm_elementwise_affine", false);
  m.encoding = Encoding::learned;
  m.position_offset = 2;
  m.norm.kind = Norm::layer;
  m.gated = false;
  m.qkv_bias = m.out_bias = m.mlp_bias = config.flag("enable_bias", true);
  const bool before = config.flag("do_layer_norm_before", true);
  m.placement = before ? LayerShape::Placement::before : LayerShape::Placement::last;
  m.final_norm = before && !config.flag("_remove_final_layer_norm", false);
  m.embedding_size = config.size("word_embed_proj_dim", m.hidden);
}

/// The norms have one name wherever they stand.
const RegisterDecoder family({.type = "opt",
                              .keys = {{"intermediate_size", "ffn_dim"}, {"hidden_act", "activation_function"}},
                              .names = {.base = "model.",
                                        .layers = "model.decoder.layers.",
                                        .parts = {{"input_layernorm", "self_attn_layer_norm"},
                                                  {"self_attn_layernorm", "self_attn_layer_norm"},
                                                  {"post_attention_layernorm", "final_layer_norm"},
                                                  {"self_attn.o_proj", "self_attn.out_proj"},
                                                  {"mlp.up_proj", "fc1"},
                                                  {"mlp.down_proj", "fc2"},
                                                  {"mlp_layernorm", "final_layer_norm"}},
                                        .whole = {{"model.embed_tokens", "model.decoder.embed_tokens"},
                                                  {"model.embed_positions", "model.decoder.embed_positions"},
                                                  {"model.project_in", "model.decoder.project_in"},
                                                  {"model.project_out", "model.decoder.project_out"},
                                                  {"model.norm", "model.decoder.final_layer_norm"}}},
                              .epsilon_key = "",
                              .epsilon = 1e-5,
                              .tied = true,
                              .activation = "relu",
                              .differ = opt});

}  // namespace
}  // namespace espalier
