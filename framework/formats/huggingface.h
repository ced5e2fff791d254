#pragma once
#include <filesystem>
#include <string>

#include "formats/decoder.h"
#include "formats/imported_model.h"

namespace espalier {

/// A decoder-only language model from a Hugging Face directory: config.json, model.safetensors or its shards with
/// model.safetensors.index.json, and tokenizer.json where there is one. Weights (f32, f16, bf16) become f32, linear ones [in, out],
/// under the names that the files have. Reads the families that huggingface_families() lists. Hostile input: shard names may not
/// leave the folder, every size is checked against the files. Throws Error(invalid_input) with file and key, Error(unsupported) by
/// name.
ImportedModel import_huggingface(const std::filesystem::path& folder);

/// The graph that import_huggingface() makes for a config.json, without weights: `weights` is asked for each. Throws as it does.
Graph build_huggingface(const Json& config, DecoderWeights& weights, const std::string& where);

/// "gemma, gemma2, …": values of `model_type`.
std::string huggingface_families();

}  // namespace espalier
