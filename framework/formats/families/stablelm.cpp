// StableLM: LLaMA with LayerNorm, a part of each head rotated, perhaps parallel.
#include "formats/huggingface/decoder_family.h"

namespace espalier {
namespace {

void stablelm(DecoderShape& m, const HfConfig& config) {
  config.refuse("qk_layernorm");
  m.norm.kind = Norm::layer;
  m.qkv_bias = config.flag("use_qkv_bias", false);
  if (config.flag("use_parallel_residual", false)) m.residual = LayerShape::Residual::parallel_shared;
}

const RegisterDecoder family(
    {.type = "stablelm", .epsilon_key = "layer_norm_eps", .epsilon = 1e-5, .rotary_share = 0.25, .differ = stablelm});

}  // namespace
}  // namespace espalier
