// GPT-J: both branches from one norm, rotary pairs side by side, a head with a bias.
#include "formats/huggingface/decoder_family.h"

namespace espalier {
namespace {

void gptj(DecoderShape& m, const HfConfig& config) {
  m.norm.kind = Norm::layer;
  m.residual = LayerShape::Residual::parallel_shared;
  m.gated = false;
  m.mlp_bias = m.head_bias = true;
  m.rotary_pairs = true;
  m.rotary_size = config.size("rotary_dim", 64);
}

const RegisterDecoder family({.type = "gptj",
                              .keys = {{"hidden_size", "n_embd"},
                                       {"num_hidden_layers", "n_layer"},
                                       {"num_attention_heads", "n_head"},
                                       {"max_position_embeddings", "n_positions"},
                                       {"intermediate_size", "n_inner"},
                                       {"hidden_act", "activation_function"}},
                              .names = {.base = "transformer.",
                                        .layers = "transformer.h.",
                                        .parts = {{"input_layernorm", "ln_1"},
                                                  {"self_attn.q_proj", "attn.q_proj"},
                                                  {"self_attn.k_proj", "attn.k_proj"},
                                                  {"self_attn.v_proj", "attn.v_proj"},
                                                  {"self_attn.o_proj", "attn.out_proj"},
                                                  {"mlp.up_proj", "mlp.fc_in"},
                                                  {"mlp.down_proj", "mlp.fc_out"}},
                                        .whole = {{"model.embed_tokens", "transformer.wte"}, {"model.norm", "transformer.ln_f"}},
                                        .unread = {".attn.bias", ".attn.masked_bias"}},
                              .epsilon_key = "layer_norm_epsilon",
                              .epsilon = 1e-5,
                              .activation = "gelu_new",
                              .feed_forward = 4,
                              .differ = gptj});

}  // namespace
}  // namespace espalier
