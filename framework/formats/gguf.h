#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "formats/imported_model.h"
#include "formats/weight_source.h"
#include "graph/graph.h"

namespace espalier {

/// A parsed GGUF file (version 2 and 3): metadata and mapped tensors. Hostile input: every count, length and offset is checked
/// against the file before it is used. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
class GgufFile {
 public:
  using Scalar = std::variant<std::int64_t, std::uint64_t, double, bool, std::string>;
  struct Array {
    std::vector<Scalar> items;
  };
  using Value = std::variant<Scalar, Array>;
  struct Entry {
    std::string name;
    std::uint32_t type;
    std::vector<std::int64_t> shape; /* row-major, outermost first */
    std::span<const std::byte> bytes;
  };

  /// Throws Error(invalid_input) with the file and the byte offset.
  static GgufFile open(const std::filesystem::path& file);

  const std::map<std::string, Value>& metadata() const { return metadata_; }
  const std::vector<Entry>& tensors() const { return tensors_; }
  const Entry* tensor(const std::string& name) const;
  /// The entry as f32 [shape], dequantized; throws Error(unsupported) naming tensor and type.
  Tensor dequantize(const Entry& entry) const;
  const std::string& where() const { return where_; }

 private:
  std::map<std::string, Value> metadata_;
  std::vector<Entry> tensors_;
  std::shared_ptr<const void> owner_;
  std::string where_;
};

/// LLaMA-family GGUF → opset-23 graph with Hugging Face's scope names. Inputs input_ids, attention_mask, position_ids
/// [batch, sequence] int64; output logits [batch, sequence, vocabulary] f32. Linear weights are stored [in, out] under
/// "model.layers.N.mlp.down_proj.weight"; a head tied to the embedding is one initializer "model.embed_tokens.weight".
/// Converted weights go to `store` where there is one.
ImportedModel import_gguf(const std::filesystem::path& file, const TensorStore& store = {});

}  // namespace espalier
