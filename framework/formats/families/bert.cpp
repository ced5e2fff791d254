// BERT, and RoBERTa and XLM-RoBERTa, which count positions from the padding on.
#include "formats/huggingface/encoder_family.h"

namespace espalier {
namespace {

TensorNames names(const std::string& base, TensorNames::Map heads) {
  TensorNames out{.base = base,
                  .layers = base + "encoder.layer.",
                  .parts = {{"self_attn.q_proj", "attention.self.query"},
                            {"self_attn.k_proj", "attention.self.key"},
                            {"self_attn.v_proj", "attention.self.value"},
                            {"self_attn.o_proj", "attention.output.dense"},
                            {"self_attn_layernorm", "attention.output.LayerNorm"},
                            {"mlp.up_proj", "intermediate.dense"},
                            {"mlp.down_proj", "output.dense"},
                            {"mlp_layernorm", "output.LayerNorm"}},
                  .whole = {{"embeddings.word_embeddings", base + "embeddings.word_embeddings"},
                            {"embeddings.position_embeddings", base + "embeddings.position_embeddings"},
                            {"embeddings.token_type_embeddings", base + "embeddings.token_type_embeddings"},
                            {"embeddings.norm", base + "embeddings.LayerNorm"},
                            {"pooler.dense", base + "pooler.dense"}},
                  .unread = {"embeddings.position_ids", "embeddings.token_type_ids"}};
  out.whole.merge(heads);
  return out;
}

void roberta(EncoderShape& m, const HfConfig& config) { m.padding = config.natural("pad_token_id", 1); }

EncoderFamily roberta_family(const char* type) {
  return {.type = type,
          .names = names("roberta.", {{"token_head.dense", "lm_head.dense"},
                                      {"token_head.norm", "lm_head.layer_norm"},
                                      {"token_head.decoder", "lm_head|lm_head.decoder"},
                                      {"class_head.dense", "classifier.dense"},
                                      {"class_head.out_proj", "classifier.out_proj"}}),
          .heads = {"lm_head.", "classifier.", "roberta.pooler.", "pooler."},
          .differ = roberta};
}

const RegisterEncoder families[] = {
    RegisterEncoder({.type = "bert",
                     .names = names("bert.", {{"token_head.dense", "cls.predictions.transform.dense"},
                                              {"token_head.norm", "cls.predictions.transform.LayerNorm"},
                                              {"token_head.decoder", "cls.predictions|cls.predictions.decoder"},
                                              {"class_head.dense", "bert.pooler.dense"},
                                              {"class_head.out_proj", "classifier"}}),
                     .heads = {"cls.", "classifier.", "bert.pooler.", "pooler."},
                     .token_head_activation = true,
                     .token_heads = {"ForMaskedLM", "ForPreTraining"}}),
    RegisterEncoder(roberta_family("roberta")),
    RegisterEncoder(roberta_family("xlm-roberta")),
};

}  // namespace
}  // namespace espalier
