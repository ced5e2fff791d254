#pragma once
/// Decoder-only language models as graphs. What sets one family apart from another is data (DecoderShape), so that every importer
/// builds with the same code.
#include <cstdint>
#include <string>
#include <vector>

#include "formats/rotary_table.h"
#include "formats/transformer_layer.h"

namespace espalier {

struct DecoderShape : LayerShape {
  std::int64_t layers = 0, positions = 0, vocabulary = 0;
  std::int64_t embedding_size = 0;  ///< where tokens have fewer elements than the stream, 0: as many (OPT 350m)
  RotaryTable rotary, local;        ///< local: of layers with a window, where `has_local`
  bool has_local = false;
  std::int64_t position_offset = 0;  ///< learned: row of position 0
  bool embedding_norm = false, final_norm = true;
  bool tied = false;  ///< the head is the embedding
  bool head_bias = false;
  double embedding_scale = 1, logit_scale = 1;
  double final_softcap = 0;
  std::vector<std::int64_t> windows;  ///< by layer: positions that a query sees, its own counted; 0 or absent: all
};

/// An opset-23 graph: input_ids, attention_mask, position_ids [batch, sequence] int64 to logits [batch, sequence, vocabulary] f32.
/// Asks `weights` for every initializer that the file has, as model.embed_tokens, model.embed_positions, model.embed_layernorm,
/// model.project_in and _out, model.layers.N.…, model.norm, lm_head; the others (tables, masks) are made. Throws Error(unsupported)
/// for lengths beyond 1,048,576 positions.
Graph build_decoder(const DecoderShape& shape, WeightSource& weights, const std::string& where);

}  // namespace espalier
