#include "formats/huggingface/decoder_family.h"

namespace espalier {
namespace {

void starcoder2(DecoderShape& m, const HfConfig& config) {
  m.norm.kind = Norm::layer;
  m.gated = false;
  m.qkv_bias = m.out_bias = m.mlp_bias = config.flag("use_bias", true);
  set_windows_everywhere(m, config);
}

const RegisterDecoder family({.type = "starcoder2",
                              .names = {.base = "model.", .parts = {{"mlp.up_proj", "mlp.c_fc"}, {"mlp.down_proj", "mlp.c_proj"}}},
                              .epsilon_key = "norm_epsilon",
                              .epsilon = 1e-5,
                              .tied = true,
                              .activation = "gelu_pytorch_tanh",
                              .differ = starcoder2});

}  // namespace
}  // namespace espalier
