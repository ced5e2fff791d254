// ELECTRA: BERT with tokens of another width than the stream's.
#include "formats/huggingface/encoder_family.h"

namespace espalier {
namespace {

void electra(EncoderShape& m, const HfConfig& config) {
  m.embedding_size = config.size("embedding_size", 128);
  m.project_embedding = m.embedding_size != m.hidden;
}

const RegisterEncoder family({.type = "electra",
                              .names = {.base = "electra.",
                                        .layers = "electra.encoder.layer.",
                                        .parts = {{"self_attn.q_proj", "attention.self.query"},
                                                  {"self_attn.k_proj", "attention.self.key"},
                                                  {"self_attn.v_proj", "attention.self.value"},
                                                  {"self_attn.o_proj", "attention.output.dense"},
                                                  {"self_attn_layernorm", "attention.output.LayerNorm"},
                                                  {"mlp.up_proj", "intermediate.dense"},
                                                  {"mlp.down_proj", "output.dense"},
                                                  {"mlp_layernorm", "output.LayerNorm"}},
                                        .whole = {{"embeddings.word_embeddings", "electra.embeddings.word_embeddings"},
                                                  {"embeddings.position_embeddings", "electra.embeddings.position_embeddings"},
                                                  {"embeddings.token_type_embeddings", "electra.embeddings.token_type_embeddings"},
                                                  {"embeddings.norm", "electra.embeddings.LayerNorm"},
                                                  {"embeddings.project", "electra.embeddings_project"},
                                                  {"token_head.dense", "generator_predictions.dense"},
                                                  {"token_head.norm", "generator_predictions.LayerNorm"},
                                                  {"token_head.decoder", "generator_lm_head"},
                                                  {"class_head.dense", "classifier.dense"},
                                                  {"class_head.out_proj", "classifier.out_proj"}},
                                        .unread = {"embeddings.position_ids", "embeddings.token_type_ids"}},
                              .heads = {"generator_", "discriminator_predictions.", "classifier."},
                              .class_activation = Activation::gelu,
                              .differ = electra});

}  // namespace
}  // namespace espalier
