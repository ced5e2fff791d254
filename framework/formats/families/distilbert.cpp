// DistilBERT: BERT without types of tokens and without a pooler.
#include "formats/huggingface/encoder_family.h"

namespace espalier {
namespace {

const RegisterEncoder family({.type = "distilbert",
                              .keys = {{"hidden_size", "dim"},
                                       {"num_hidden_layers", "n_layers"},
                                       {"num_attention_heads", "n_heads"},
                                       {"intermediate_size", "hidden_dim"},
                                       {"hidden_act", "activation"}},
                              .names = {.base = "distilbert.",
                                        .layers = "distilbert.transformer.layer.",
                                        .parts = {{"self_attn.q_proj", "attention.q_lin"},
                                                  {"self_attn.k_proj", "attention.k_lin"},
                                                  {"self_attn.v_proj", "attention.v_lin"},
                                                  {"self_attn.o_proj", "attention.out_lin"},
                                                  {"self_attn_layernorm", "sa_layer_norm"},
                                                  {"mlp.up_proj", "ffn.lin1"},
                                                  {"mlp.down_proj", "ffn.lin2"},
                                                  {"mlp_layernorm", "output_layer_norm"}},
                                        .whole = {{"embeddings.word_embeddings", "distilbert.embeddings.word_embeddings"},
                                                  {"embeddings.position_embeddings", "distilbert.embeddings.position_embeddings"},
                                                  {"embeddings.norm", "distilbert.embeddings.LayerNorm"},
                                                  {"token_head.dense", "vocab_transform"},
                                                  {"token_head.norm", "vocab_layer_norm"},
                                                  {"token_head.decoder", "vocab_projector"},
                                                  {"class_head.dense", "pre_classifier"},
                                                  {"class_head.out_proj", "classifier"}},
                                        .unread = {"embeddings.position_ids"}},
                              .heads = {"vocab_", "pre_classifier.", "classifier.", "qa_outputs."},
                              .epsilon_key = "",
                              .token_types = 0,
                              .token_head_activation = true,
                              .class_activation = Activation::relu});

}  // namespace
}  // namespace espalier
