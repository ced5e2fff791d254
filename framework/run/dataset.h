#pragma once
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "run/tensor.h"
#include "sdk/context.h"

namespace espalier {

/// Examples that a model is fed by number. A kind of data set is one class in one file with a RegisterDataset.
class Dataset {
 public:
  virtual ~Dataset();
  virtual std::int64_t count() const = 0;
  /// Examples by number, stacked along the first axis: what a model reads, by input name, and "labels" where they are known.
  virtual TensorMap batch(const std::vector<std::int64_t>& examples) const = 0;
  /// What the mean loss of these examples counts beside that of others: how many they are, or how many of their tokens count where
  /// data tells tokens apart.
  virtual double weight(const std::vector<std::int64_t>& examples) const;
};

/// The data set of an artifact, by meta.kind. Throws Error(invalid_input) for a kind that nothing reads, and when the bytes do not
/// match the meta.
std::unique_ptr<Dataset> open_dataset(const Context& context, const Artifact& artifact);

struct RegisterDataset {
  using Open = std::unique_ptr<Dataset> (*)(const Context& context, const Artifact& artifact);
  RegisterDataset(const char* kind, Open open);
};

/// What a data set says of one token, a byte each (blob "flags.u8").
struct TokenFlag {
  static constexpr std::uint8_t real = 1;     ///< no padding
  static constexpr std::uint8_t counted = 2;  ///< counts in the loss, as what is to be predicted
};

/// A token data set: `count` windows of `sequence` tokens (mapped int32, blob "tokens.i32"). meta.kind == "tokens". With
/// meta.flags == true, "flags.u8" says which tokens are padding (always behind the real ones, of which each window has one or
/// more) and which count; the first of a window never does, as nothing stands before it. Without flags all are real and count.
class TokenDataset final : public Dataset {
 public:
  /// Throws Error(invalid_input) when the artifact is of another kind, its bytes do not match its meta, or flags say what cannot
  /// be.
  TokenDataset(const Context& context, const Artifact& artifact);
  std::int64_t count() const override { return count_; }
  std::int64_t sequence() const { return sequence_; }
  /// Windows by number → {"input_ids", "attention_mask", "position_ids"}, each [n, sequence] int64. With flags the mask is 0 on
  /// padding, positions stay there at the last real one, and "labels", of the same shape, are the tokens that count, -1 elsewhere.
  TensorMap batch(const std::vector<std::int64_t>& windows) const override;
  double weight(const std::vector<std::int64_t>& windows) const override;
  std::span<const std::int32_t> tokens() const;  ///< all, in order
  std::span<const std::uint8_t> flags() const;   ///< of all tokens; empty without flags

 private:
  std::span<const std::uint8_t> flags_of(std::int64_t window) const;
  MappedFile file_, flags_;
  std::int64_t count_ = 0, sequence_ = 0;
};

/// The graph's inputs out of a batch, by name; a model with one input takes a batch's only array whatever it is called. Throws
/// Error(invalid_input) naming an input that the batch does not have.
TensorMap inputs_for(const Graph& graph, const TensorMap& batch);

/// Numbers of examples spread evenly over a data set of `count`: no seed, and none twice; all of them when `samples` is more.
std::vector<std::int64_t> spread(std::int64_t count, std::int64_t samples);

/// Numbers of the examples that belong to a part ("all", "train", "heldout") of `count`, ascending. The held-out share is drawn by
/// the seed alone, so that `train` and `heldout` of two stages never overlap.
std::vector<std::int64_t> examples_of_part(std::int64_t count, std::string_view part, double share, std::uint64_t seed);

/// Model and data must name the same tokenizer (digest); throws Error(invalid_input) naming both.
void check_tokenizers(const Artifact& model, const Artifact& data);

/// The order in which an epoch's windows are visited: a permutation from the seed, the same everywhere (splitmix64 + Fisher–Yates).
std::vector<std::int64_t> shuffled(std::int64_t count, std::uint64_t seed);

}  // namespace espalier
