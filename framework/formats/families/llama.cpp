// LLaMA and what follows it closely: Mistral, Mixtral, Phi-3, Qwen 2 and 3, OLMo 2.
#include "formats/huggingface/decoder_family.h"

namespace espalier {
namespace {

void biased(DecoderShape& m, const HfConfig& config) {
  m.qkv_bias = m.out_bias = config.flag("attention_bias", false);
  m.mlp_bias = config.flag("mlp_bias", false);
}

/// Qwen: a window only where it is switched on, from a layer on.
void qwen_windows(DecoderShape& m, const HfConfig& config) {
  if (!config.flag("use_sliding_window", false)) return;
  const std::int64_t first = config.positive("max_window_layers", 28);
  set_windows(m, config, config.positive("sliding_window", 4096), [&](std::int64_t layer) { return layer >= first; });
}

void mixtral(DecoderShape& m, const HfConfig& config) {
  set_windows_everywhere(m, config);
  m.experts = config.positive("num_local_experts", 8);
  m.experts_used = config.positive("num_experts_per_tok", 2);
  if (m.experts > 4096 || m.experts_used > m.experts) config.fail("num_experts_per_tok", "does not fit the number of experts");
}

void olmo2(DecoderShape& m, const HfConfig& config) {
  biased(m, config);
  m.placement = LayerShape::Placement::after;
  m.query_norm = LayerShape::QueryNorm::width;
}

void phi3(DecoderShape& m, const HfConfig& config) {
  set_windows_everywhere(m, config);
  m.qkv = LayerShape::Qkv::stacked;
  m.fused_gate_up = true;
}

void qwen2(DecoderShape& m, const HfConfig& config) {
  m.qkv_bias = true;
  qwen_windows(m, config);
}

void qwen3(DecoderShape& m, const HfConfig& config) {
  m.qkv_bias = m.out_bias = config.flag("attention_bias", false);
  m.query_norm = LayerShape::QueryNorm::head;
  qwen_windows(m, config);
}

TensorNames names() { return {.base = "model.", .unread = {"rotary_emb.inv_freq"}}; }

const RegisterDecoder families[] = {
    RegisterDecoder({.type = "llama", .names = names(), .differ = biased}),
    RegisterDecoder({.type = "mistral", .names = names(), .differ = set_windows_everywhere}),
    RegisterDecoder({.type = "mixtral", .names = names(), .epsilon = 1e-5, .differ = mixtral}),
    RegisterDecoder({.type = "olmo2", .names = names(), .epsilon = 1e-5, .differ = olmo2}),
    RegisterDecoder({.type = "phi3", .names = names(), .epsilon = 1e-5, .differ = phi3}),
    RegisterDecoder({.type = "qwen2", .names = names(), .differ = qwen2}),
    RegisterDecoder({.type = "qwen3", .names = names(), .differ = qwen3}),
};

}  // namespace
}  // namespace espalier
