// Gemma 1 to 3: norms around their layers, scaled embeddings, windows, soft caps.
#include <cmath>

#include "formats/huggingface/decoder_family.h"
#include "sdk/error.h"

namespace espalier {
namespace {

void gemma(DecoderShape& m, const HfConfig& config) {
  m.norm.kind = Norm::rms_one;
  m.embedding_scale = std::sqrt(static_cast<double>(m.hidden));
  m.qkv_bias = m.out_bias = config.flag("attention_bias", false);
  config.refuse("use_bidirectional_attention");
}

void gemma2(DecoderShape& m, const HfConfig& config) {
  gemma(m, config);
  m.placement = LayerShape::Placement::around;
  const double scalar = config.number("query_pre_attn_scalar", 256);
  if (!(scalar > 0)) config.fail("query_pre_attn_scalar", "is no positive number");
  m.attention_scale = 1 / std::sqrt(scalar);
  m.attention_softcap = config.number("attn_logit_softcapping", 0);
  m.final_softcap = config.number("final_logit_softcapping", 0);
  set_windows(m, config, config.positive("sliding_window", 4096), [](std::int64_t layer) { return layer % 2 == 0; });
}

void gemma3(DecoderShape& m, const HfConfig& config) {
  gemma2(m, config);
  m.query_norm = LayerShape::QueryNorm::head;
  const std::int64_t pattern = config.positive("sliding_window_pattern", 6);
  set_windows(m, config, config.positive("sliding_window", 4096), [&](std::int64_t layer) { return (layer + 1) % pattern != 0; });
  m.has_local = true;
  if (config.has("rope_parameters"))
    read_rotary(m.local, config, "sliding_attention", 10000, 1, m.positions);
  else
    m.local.base = config.number("rope_local_base_freq", 10000);
  if (!(m.local.base > 1)) config.fail("rope_local_base_freq", "is no number above 1");
}

const RegisterDecoder families[] = {
    RegisterDecoder({.type = "gemma", .tied = true, .activation = "gelu_pytorch_tanh", .differ = gemma}),
    RegisterDecoder({.type = "gemma2", .tied = true, .activation = "gelu_pytorch_tanh", .differ = gemma2}),
    RegisterDecoder({.type = "gemma3_text", .tied = true, .activation = "gelu_pytorch_tanh", .rotary_base = 1e6, .differ = gemma3}),
};

}  // namespace
}  // namespace espalier
