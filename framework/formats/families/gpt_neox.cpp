// GPT-NeoX (Pythia): queries, keys and values of each head side by side, a part of each head rotated, perhaps parallel.
#include "formats/huggingface/decoder_family.h"

namespace espalier {
namespace {

void gpt_neox(DecoderShape& m, const HfConfig& config) {
  m.norm.kind = Norm::layer;
  m.qkv = LayerShape::Qkv::by_head;
  m.qkv_bias = m.out_bias = config.flag("attention_bias", true);
  m.gated = false;
  m.mlp_bias = true;
  if (config.flag("use_parallel_residual", true)) m.residual = LayerShape::Residual::parallel;
}

const RegisterDecoder family({.type = "gpt_neox",
                              .keys = {{"rope_theta", "rotary_emb_base"}, {"partial_rotary_factor", "rotary_pct"}},
                              .names = {.base = "gpt_neox.",
                                        .layers = "gpt_neox.layers.",
                                        .parts = {{"self_attn.qkv_proj", "attention.query_key_value"},
                                                  {"self_attn.o_proj", "attention.dense"},
                                                  {"mlp.up_proj", "mlp.dense_h_to_4h"},
                                                  {"mlp.down_proj", "mlp.dense_4h_to_h"}},
                                        .whole = {{"model.embed_tokens", "gpt_neox.embed_in"},
                                                  {"model.norm", "gpt_neox.final_layer_norm"},
                                                  {"lm_head", "embed_out|lm_head"}},
                                        .unread = {".attention.bias", ".attention.masked_bias", "rotary_emb.inv_freq"}},
                              .epsilon_key = "layer_norm_eps",
                              .epsilon = 1e-5,
                              .activation = "gelu",
                              .rotary_share = 0.25,
                              .differ = gpt_neox});

}  // namespace
}  // namespace espalier
