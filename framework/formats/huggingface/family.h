#pragma once
/// Families of models in Hugging Face directories. A family is one file in formats/families/, which registers what it differs in.
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "formats/huggingface/config.h"
#include "formats/huggingface/sentence.h"
#include "formats/tensor_names.h"
#include "formats/weight_source.h"
#include "graph/graph.h"

namespace espalier {

/// What a family reads from.
struct HfSource {
  std::filesystem::path folder;  ///< with the weights
  HfConfig config;
  std::optional<SentencePooling> pooling;  ///< of a sentence-transformers directory
  TensorStore store;                       ///< for what the weights become; perhaps none
};

struct HfModel {
  Graph graph;                        ///< with its metadata "espalier.task"
  std::int64_t vocabulary = 0;        ///< rows of the embedding
  std::vector<std::string> left_out;  ///< tensors of heads that were not asked for
};

struct HuggingFaceFamily {
  std::string type;  ///< `model_type`
  std::function<HfModel(const HfSource&)> read;
  TensorNames names = {};
  /// The graph alone, of families that are written, too.
  std::function<Graph(const HfConfig&, WeightSource&)> build = {};
};

/// As a file-static object in the family's file.
struct RegisterHuggingFaceFamily {
  explicit RegisterHuggingFaceFamily(HuggingFaceFamily family);
};

/// silu, gelu and relu under their names of the config; throws Error(unsupported) naming the key for others.
Activation read_activation(const HfConfig& config, const char* key, const char* fallback);

}  // namespace espalier
