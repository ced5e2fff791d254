// Falcon: three architectures under one name. 7B: one key head, both branches from one norm. 40B ("new"): groups of heads side by
// side, each branch with a norm of its own. RW: ALiBi (rounded to bf16), heads side by side, perhaps one branch after the other.
#include <fmt/format.h>

#include <cmath>

#include "formats/huggingface/decoder_family.h"
#include "sdk/error.h"

namespace espalier {
namespace {

void falcon(DecoderShape& m, const HfConfig& config) {
  using R = LayerShape::Residual;
  const bool grouped = config.flag("new_decoder_architecture", false), parallel = config.flag("parallel_attn", true);
  if (grouped) config.refuse("parallel_attn", false);
  const std::int64_t norms = config.positive("num_ln_in_parallel_attn", grouped ? 2 : 1);
  if (norms > 2 || (norms == 2 && (!grouped || !parallel)))
    throw_unsupported(fmt::format("\"num_ln_in_parallel_attn\" is {} in this architecture", norms), config.where());
  m.residual = norms == 2 ? R::parallel : parallel ? R::parallel_shared : R::sequential;
  m.norm.kind = Norm::layer;
  m.gated = false;
  m.qkv_bias = m.out_bias = m.mlp_bias = config.flag("bias", false);
  m.kv_heads = grouped ? config.size("num_kv_heads", m.heads) : m.heads;
  m.qkv = LayerShape::Qkv::by_head;
  if (!grouped && config.flag("multi_query", true)) m.kv_heads = 1;  // all queries before the one key: either layout
  if (!config.flag("alibi", false)) return;
  m.encoding = Encoding::alibi;
  m.alibi_scale = 1 / std::sqrt(static_cast<double>(m.head_size));
  m.alibi_rounded = true;
}

const RegisterDecoder family(
    {.type = "falcon",
     .keys = {{"hidden_size", "n_embed"}, {"intermediate_size", "ffn_hidden_size"}, {"hidden_act", "activation"}},
     .names = {.base = "transformer.",
               .layers = "transformer.h.",
               .parts = {{"input_layernorm", "input_layernorm|ln_attn"},
                         {"self_attn.qkv_proj", "self_attention.query_key_value"},
                         {"self_attn.o_proj", "self_attention.dense"},
                         {"post_attention_layernorm", "ln_mlp|post_attention_layernorm"},
                         {"mlp.up_proj", "mlp.dense_h_to_4h"},
                         {"mlp.down_proj", "mlp.dense_4h_to_h"}},
               .whole = {{"model.embed_tokens", "transformer.word_embeddings"}, {"model.norm", "transformer.ln_f"}}},
     .epsilon_key = "layer_norm_epsilon",
     .epsilon = 1e-5,
     .tied = true,
     .activation = "gelu",
     .feed_forward = 4,
     .positions = 2048,
     .differ = falcon});

}  // namespace
}  // namespace espalier
