#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "formats/tokenizer.h"
#include "graph/graph.h"

namespace espalier {

struct HuggingfaceOptions {
  std::optional<DType> dtype;               ///< f32, f16 or bf16 for all weights; without one, each stays as the graph stores it
  std::uint64_t max_shard = 5'000'000'000;  ///< bytes of weights in one file; a tensor that is larger has a file of its own
  /// Called after every few megabytes with the bytes of weights so far and in all; what it throws ends the writing.
  std::function<void(std::uint64_t done, std::uint64_t all)> progress = {};
};

struct HuggingfaceFiles {
  std::string family;                                          ///< `model_type`
  std::string dtype;                                           ///< of the weights: "float32"; the widest where they differ
  std::vector<std::pair<std::string, std::uint64_t>> written;  ///< names in the folder and their bytes
};

/// Writes a causal language model into a folder that transformers loads: config.json, model.safetensors (or shards and
/// model.safetensors.index.json), generation_config.json, and with a tokenizer tokenizer.json and tokenizer_config.json. Names are
/// the family's, never the graph's. Weights are turned and converted a few megabytes at a time. Byte-stable. Throws
/// Error(unsupported) as plan_huggingface() does, before anything is written; Error(invalid_input) for a weight beyond the type.
HuggingfaceFiles write_huggingface(const Graph& graph, const Tokenizer* tokenizer, const std::filesystem::path& folder,
                                   const HuggingfaceOptions& options = {});

}  // namespace espalier
