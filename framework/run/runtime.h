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

struct OpenOptions {
  int threads = 2;
  bool last_only = false;  ///< the head is only ever asked for the last position (speed)
};

/// C++ interface of backends whose packages can be run on this machine.
class Runtime {
 public:
  static constexpr std::string_view interface_id = "espalier.runtime/1";
  virtual ~Runtime();
  virtual std::unique_ptr<LanguageModel> open_language_model(const std::filesystem::path& package, const OpenOptions& options) = 0;
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

}  // namespace espalier
