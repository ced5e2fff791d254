// Cohere's Command R: LayerNorm without bias, both branches from one norm, rotary pairs side by side, scaled logits.
#include "formats/huggingface/decoder_family.h"

namespace espalier {
namespace {

void cohere(DecoderShape& m, const HfConfig& config) {
  config.refuse("use_qk_norm");
  m.norm.kind = Norm::layer;
  m.norm.bias = false;
  m.residual = LayerShape::Residual::parallel_shared;
  m.qkv_bias = m.out_bias = config.flag("attention_bias", false);
  m.rotary_pairs = true;
  m.logit_scale = config.number("logit_scale", 0.0625);
}

const RegisterDecoder family(
    {.type = "cohere", .epsilon_key = "layer_norm_eps", .epsilon = 1e-5, .tied = true, .rotary_base = 5e5, .differ = cohere});

}  // namespace
}  // namespace espalier
