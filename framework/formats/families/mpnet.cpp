// MPNet: biases of attention by distance, one table for all layers; positions count from the padding on.
#include <fmt/format.h>

#include "formats/huggingface/encoder_family.h"
#include "sdk/error.h"

namespace espalier {
namespace {

void mpnet(EncoderShape& m, const HfConfig& config) {
  m.relative_buckets = config.positive("relative_attention_num_buckets", 32);
  if (m.relative_buckets != 32)
    throw_unsupported(fmt::format("\"relative_attention_num_buckets\" is {}", m.relative_buckets), config.where(),
                      "the reference always fills 32");
  m.padding = 1;
}

const RegisterEncoder family({.type = "mpnet",
                              .names = {.base = "mpnet.",
                                        .layers = "mpnet.encoder.layer.",
                                        .parts = {{"self_attn.q_proj", "attention.attn.q"},
                                                  {"self_attn.k_proj", "attention.attn.k"},
                                                  {"self_attn.v_proj", "attention.attn.v"},
                                                  {"self_attn.o_proj", "attention.attn.o"},
                                                  {"self_attn_layernorm", "attention.LayerNorm"},
                                                  {"mlp.up_proj", "intermediate.dense"},
                                                  {"mlp.down_proj", "output.dense"},
                                                  {"mlp_layernorm", "output.LayerNorm"}},
                                        .whole = {{"embeddings.word_embeddings", "mpnet.embeddings.word_embeddings"},
                                                  {"embeddings.position_embeddings", "mpnet.embeddings.position_embeddings"},
                                                  {"embeddings.norm", "mpnet.embeddings.LayerNorm"},
                                                  {"encoder.self_attn.relative_bias", "mpnet.encoder.relative_attention_bias"},
                                                  {"pooler.dense", "mpnet.pooler.dense"},
                                                  {"token_head.dense", "lm_head.dense"},
                                                  {"token_head.norm", "lm_head.layer_norm"},
                                                  {"token_head.decoder", "lm_head|lm_head.decoder"},
                                                  {"class_head.dense", "classifier.dense"},
                                                  {"class_head.out_proj", "classifier.out_proj"}},
                                        .unread = {"embeddings.position_ids"}},
                              .heads = {"lm_head.", "classifier.", "mpnet.pooler.", "pooler."},
                              .token_types = 0,
                              .differ = mpnet});

}  // namespace
}  // namespace espalier
