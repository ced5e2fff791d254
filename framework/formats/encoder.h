#pragma once
/// Encoders (BERT and its kin) as graphs. What sets one family apart from another is data (EncoderShape).
#include <cstdint>
#include <optional>
#include <string>

#include "formats/transformer_layer.h"

namespace espalier {

/// How a sentence's embedding comes from those of its tokens.
struct SentencePooling {
  enum class Kind { mean, first, largest } kind = Kind::mean;  ///< over what attention_mask lets through
  bool normalize = false;                                      ///< to length 1
};

struct EncoderShape : LayerShape {
  EncoderShape();  ///< BERT's layer

  std::int64_t layers = 0, positions = 0, vocabulary = 0;
  std::int64_t token_types = 0;         ///< 0: no table
  std::int64_t embedding_size = 0;      ///< of a token
  bool project_embedding = false;       ///< to the stream's width, even where that is the same
  std::int64_t layer_groups = 0;        ///< layers share the weights of so many (ALBERT); 0: none do
  std::optional<std::int64_t> padding;  ///< positions count the tokens that are not this one, from it on; none: they count all
  std::int64_t relative_buckets = 0;    ///< of distances, which have biases for each head (MPNet)

  enum class Head {
    none,      ///< last_hidden_state [batch, sequence, hidden], pooler_output [batch, hidden] where the file has a pooler
    tokens,    ///< logits [batch, sequence, vocabulary], of what a masked token was
    classes,   ///< logits [batch, labels]
    sentence,  ///< sentence_embedding [batch, hidden]
  } head = Head::none;
  std::int64_t labels = 0;
  Activation token_activation = Activation::gelu, class_activation = Activation::tanh;
  SentencePooling pooling;
};

/// An opset-23 graph: input_ids, attention_mask and, where there are several types, token_type_ids [batch, sequence] int64 to what
/// the head gives, f32. Asks `weights` for embeddings.{word,position,token_type}_embeddings, embeddings.norm, embeddings.project,
/// encoder.layers.N.…, encoder.self_attn.relative_bias, pooler.dense, token_head.{dense,norm,decoder}, class_head.{dense,out_proj}.
/// Throws Error(unsupported) for lengths beyond 1,048,576 positions.
Graph build_encoder(const EncoderShape& shape, WeightSource& weights, const std::string& where);

}  // namespace espalier
