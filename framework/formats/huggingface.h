#pragma once
#include <filesystem>
#include <string>

#include "formats/imported_model.h"
#include "formats/tensor_names.h"
#include "formats/weight_source.h"

namespace espalier {

/// A model from a Hugging Face directory: config.json, model.safetensors or its shards with model.safetensors.index.json, and
/// tokenizer.json where there is one; or from a sentence-transformers directory, whose modules.json adds a pooling. Weights (f32,
/// f16, bf16) become f32, linear ones [in, out], under one scheme of names for all families (formats/transformer_layer.h). Reads
/// the families that huggingface_families() lists. Hostile input: nothing named may leave the folder, every size is checked against
/// the files. Converted weights go to `store` where there is one. Throws Error(invalid_input) with file and key, Error(unsupported)
/// by name.
ImportedModel import_huggingface(const std::filesystem::path& folder, const TensorStore& store = {});

/// The graph that import_huggingface() makes for a language model's config.json, without weights: `weights` is asked for each.
struct BuiltModel {
  Graph graph;
  TensorNames names;  ///< what the family's files call the weights
};
/// Throws as import_huggingface() does, and Error(unsupported) for families that are read only.
BuiltModel build_huggingface(const Json& config, WeightSource& weights, const std::string& where);

/// "gemma, gemma2, …": values of `model_type`.
std::string huggingface_families();

}  // namespace espalier
