#pragma once
#include <cstdint>
#include <vector>

#include "run/tensor.h"
#include "sdk/context.h"

namespace espalier {

/// A token data set: `count` windows of `sequence` tokens (mapped int32). meta.kind == "tokens".
class TokenDataset {
 public:
  /// Throws Error(invalid_input) when the artifact is of another kind or its bytes do not match its meta.
  TokenDataset(const Context& context, const Artifact& artifact);
  std::int64_t count() const { return count_; }
  std::int64_t sequence() const { return sequence_; }
  /// Windows by number → {"input_ids", "attention_mask", "position_ids"}, each [n, sequence] int64.
  TensorMap batch(const std::vector<std::int64_t>& windows) const;
  std::span<const std::int32_t> tokens() const;  ///< all, in order

 private:
  MappedFile file_;
  std::int64_t count_ = 0, sequence_ = 0;
};

/// Model and data must name the same tokenizer (digest); throws Error(invalid_input) naming both.
void check_tokenizers(const Artifact& model, const Artifact& data);

/// The order in which an epoch's windows are visited: a permutation from the seed, the same everywhere (splitmix64 + Fisher–Yates).
std::vector<std::int64_t> shuffled(std::int64_t count, std::uint64_t seed);

}  // namespace espalier
