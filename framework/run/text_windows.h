#pragma once
/// What evaluators of language models share: windows over a stream of tokens, and whoever answers them.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "run/dataset.h"
#include "run/runtime.h"
#include "sdk/context.h"
#include "sdk/statistics.h"

namespace espalier {

/// A window of the token stream: which tokens are fed, and from which on they are counted.
struct TextWindow {
  std::int64_t begin = 0, count = 0;  ///< tokens fed: [begin, begin + count)
  std::int64_t first = 1;             ///< first token of the window whose prediction counts
  std::int64_t counted() const { return count - first; }
};

/// The windows that the parameters window, stride and limit mean over the data on port `data`. Every `stride` tokens a window;
/// where windows overlap, a token is counted once, in the first window that reaches it: the rest of the window is its context.
/// Token 0 of a window is never counted: nothing stands before it. Throws Error(invalid_input) naming the evaluator (`who`).
class TextWindows {
 public:
  TextWindows(const Context& context, std::string_view who);
  std::size_t size() const { return windows_.size(); }
  const TextWindow& operator[](std::size_t i) const { return windows_[i]; }
  std::span<const std::int32_t> tokens(const TextWindow& window) const;
  /// The ids of the counted tokens.
  std::vector<std::int64_t> targets(const TextWindow& window) const;

 private:
  TokenDataset data_;
  std::vector<TextWindow> windows_;
};

/// A model on port `model_port`, run by the project's own runner, or a package on `package_port`, run as it is deployed; exactly
/// one of them. Its tokenizer must be the data's.
class TextSubject {
 public:
  TextSubject(Context& context, std::string_view model_port, std::string_view package_port, std::string_view who);
  /// Logits that predict the counted tokens, [counted, vocabulary] f32. `bos`: a token fed before the window's own; -1 for none.
  at::Tensor predict(const TextWindows& windows, const TextWindow& window, std::int64_t bos);

 private:
  ComponentHandle backend_;  // outlives what it opens
  std::unique_ptr<LanguageModel> runner_;
};

/// States a mean over windows: figure `name` with its 95 % interval as `name`_low and `name`_high (each through `transform`, which
/// rises), and the windows' own means as detail samples.`sample`, their counts as samples.tokens.
void state_mean(Context& context, const std::string& name, const std::string& sample, const Pieces& pieces,
                const std::function<double(double)>& transform = nullptr);

}  // namespace espalier
