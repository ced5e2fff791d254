#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "run/tensor.h"
#include "sdk/component.h"

namespace espalier {

/// A deployed causal LM, opened from a package folder: tokens in, logits out, with its cache inside.
class LanguageModel {
 public:
  virtual ~LanguageModel();
  /// Forgets the cache.
  virtual void reset() = 0;
  /// Feeds tokens after what the cache holds and returns logits: [n, vocabulary] f32 of all fed positions when `all`, else [1,
  /// vocabulary] of the last one.
  virtual at::Tensor feed(std::span<const std::int64_t> tokens, bool all) = 0;
  virtual std::int64_t position() const = 0;  ///< tokens in the cache
};

/// A deployed model of any task, opened from a package folder: tensors in, tensors out.
class DeployedModel {
 public:
  virtual ~DeployedModel();
  /// The names that run() wants and gives, in the model's order.
  virtual std::vector<std::string> inputs() const = 0;
  virtual std::vector<std::string> outputs() const = 0;
  /// Floating outputs come as f32. Throws Error(invalid_input) naming an input that is missing or does not fit.
  virtual TensorMap run(const TensorMap& inputs) = 0;
};

struct OpenOptions {
  int threads = 2;
  bool last_only = false;  ///< the head is only ever asked for the last position (speed)
};

/// C++ interface of backends whose packages can be run on this machine.
class Runtime {
 public:
  static constexpr std::string_view interface_id = "espalier.runtime/2";
  virtual ~Runtime();
  virtual std::unique_ptr<LanguageModel> open_language_model(const std::filesystem::path& package, const OpenOptions& options) = 0;
  /// Any package, also one of a language model without its cache. The default throws Error(unsupported).
  virtual std::unique_ptr<DeployedModel> open_model(const std::filesystem::path& package, const OpenOptions& options);
};

/// Greedy or sampled continuation. `emit` gets each new token and returns false to stop. Returns the new tokens; `eos` ends them
/// and is neither emitted nor returned.
struct GenerateOptions {
  std::int64_t tokens = 128;
  double temperature = 0;
  std::uint64_t seed = 0;
  std::int32_t eos = -1;
};
std::vector<std::int32_t> generate(LanguageModel& model, std::span<const std::int32_t> prompt, const GenerateOptions& options,
                                   const std::function<bool(std::int32_t)>& emit);

/// A graph in our own runner as a LanguageModel (the `libtorch` backend, and models that were not packaged).
std::unique_ptr<LanguageModel> language_model(const Graph& graph, const OpenOptions& options);
std::unique_ptr<DeployedModel> deployed_model(const Graph& graph, const OpenOptions& options);

}  // namespace espalier
