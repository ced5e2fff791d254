// ALBERT: layers that share their weights, tokens of another width than the stream's.
#include <fmt/format.h>

#include "formats/huggingface/encoder_family.h"
#include "sdk/error.h"

namespace espalier {
namespace {

void albert(EncoderShape& m, const HfConfig& config) {
  if (const std::int64_t inner = config.positive("inner_group_num", 1); inner != 1)
    throw_unsupported(fmt::format("\"inner_group_num\" is {}", inner), config.where(), "groups of one layer are read");
  m.layer_groups = config.positive("num_hidden_groups", 1);
  if (m.layer_groups > m.layers) config.fail("num_hidden_groups", fmt::format("is more than {} layers", m.layers));
  m.embedding_size = config.size("embedding_size", 128);
  m.project_embedding = true;
}

const RegisterEncoder family({.type = "albert",
                              .names = {.base = "albert.",
                                        .layers = "albert.encoder.albert_layer_groups.{}.albert_layers.0.",
                                        .parts = {{"self_attn.q_proj", "attention.query"},
                                                  {"self_attn.k_proj", "attention.key"},
                                                  {"self_attn.v_proj", "attention.value"},
                                                  {"self_attn.o_proj", "attention.dense"},
                                                  {"self_attn_layernorm", "attention.LayerNorm"},
                                                  {"mlp.up_proj", "ffn"},
                                                  {"mlp.down_proj", "ffn_output"},
                                                  {"mlp_layernorm", "full_layer_layer_norm"}},
                                        .whole = {{"embeddings.word_embeddings", "albert.embeddings.word_embeddings"},
                                                  {"embeddings.position_embeddings", "albert.embeddings.position_embeddings"},
                                                  {"embeddings.token_type_embeddings", "albert.embeddings.token_type_embeddings"},
                                                  {"embeddings.norm", "albert.embeddings.LayerNorm"},
                                                  {"embeddings.project", "albert.encoder.embedding_hidden_mapping_in"},
                                                  {"pooler.dense", "albert.pooler"},
                                                  {"token_head.dense", "predictions.dense"},
                                                  {"token_head.norm", "predictions.LayerNorm"},
                                                  {"token_head.decoder", "predictions|predictions.decoder"},
                                                  {"class_head.dense", "albert.pooler"},
                                                  {"class_head.out_proj", "classifier"}},
                                        .unread = {"embeddings.position_ids", "embeddings.token_type_ids"}},
                              .heads = {"predictions.", "sop_classifier.", "classifier.", "albert.pooler.", "pooler."},
                              .activation = "gelu_new",
                              .token_head_activation = true,
                              .token_heads = {"ForMaskedLM", "ForPreTraining"},
                              .differ = albert});

}  // namespace
}  // namespace espalier
