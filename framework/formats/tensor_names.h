#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace espalier {

/// What a family's files call the tensors that the graph's scheme names (formats/transformer_layer.h). Where an entry says nothing
/// the names are the same; "a|b" are two spellings.
struct TensorNames {
  using Map = std::map<std::string, std::string, std::less<>>;

  std::string base = {};                 ///< in front of all but the heads ("transformer."); files of a base model leave it out
  std::string layers = "model.layers.";  ///< in front of a layer's number
  Map parts = {};                        ///< of a layer: "self_attn.o_proj" → "attn.c_proj"
  Map whole = {};                        ///< of the rest: "model.embed_tokens" → "transformer.wte"
  std::vector<std::string> unread = {};  ///< ends of names that hold no weights (masks, counted positions)

  /// Names under which the file may have the tensor, the usual one first.
  std::vector<std::string> spellings(std::string_view name) const;
  bool is_unread(std::string_view name) const;
};

}  // namespace espalier
