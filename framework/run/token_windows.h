#pragma once
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "run/dataset.h"
#include "run/runtime.h"
#include "sdk/statistics.h"

/// The part of a manifest that evaluators over windows of tokens share.
// clang-format off
#define ESPALIER_WINDOW_PARAMETERS \
  R"json({"name": "window", "type": "integer", "min": 2, "unit": "tokens", "help": "tokens of a window; the data's own sequence length when left out"},)json" \
  R"json({"name": "stride", "type": "integer", "min": 1, "unit": "tokens", "help": "from one window's start to the next one's; the window when left out. A smaller stride gives every token more context; each is counted once"},)json" \
  R"json({"name": "limit", "type": "integer", "default": 0, "min": 0, "help": "windows to use; 0: all"},)json" \
  R"json({"name": "bos", "type": "integer", "default": -1, "min": -1, "help": "id of a token fed before each window and not counted; -1: none"})json"
// clang-format on

namespace espalier {

/// A window of the token stream: which tokens are fed, and which of them are counted.
struct TokenWindow {
  std::int64_t begin, count;     ///< tokens fed: [begin, begin + count)
  std::int64_t first, end;       ///< the first token of the window that counts, and one past the last
  std::vector<bool> which = {};  ///< of [first, end), those that count; empty: all
  std::int64_t counted() const { return which.empty() ? end - first : std::count(which.begin(), which.end(), true); }
};

/// Every `stride` tokens a window of `length`, as a stage's parameters say. Where windows overlap, a token is counted once, in the
/// first window that reaches it: the rest of the window is its context. Token 0 of a window is never counted: nothing stands
/// before it. Where data has flags, each of its windows is one, up to its padding, and the tokens count that it says; windows in
/// which none does are left out.
class TokenWindows {
 public:
  /// Reads window, stride, limit and bos. Throws Error(invalid_input) when they leave tokens out, the data holds no window, or
  /// window or stride is given for data whose windows are examples of their own.
  TokenWindows(const Context& context, const TokenDataset& data);
  std::size_t size() const { return windows_.size(); }
  const TokenWindow& operator[](std::size_t number) const { return windows_[number]; }
  /// Feeds a window, whole, and returns the logits that predict its counted tokens: [counted, vocabulary] f32.
  at::Tensor logits(LanguageModel& model, std::size_t number) const;
  /// The counted tokens: [counted] int64.
  at::Tensor targets(std::size_t number) const;

 private:
  void cut(std::int64_t length, std::int64_t stride, std::int64_t limit);
  void take_examples(const TokenDataset& data, std::int64_t limit);
  /// Of what belongs to the tokens [first, end) of a window, the rows of those that count.
  at::Tensor counted_rows(std::size_t number, const at::Tensor& rows) const;

  std::span<const std::int32_t> tokens_;
  std::int64_t bos_;
  std::vector<TokenWindow> windows_;
};

/// A language model as an evaluator's ports give it: a model in our own runner, or a package as it is deployed.
struct Subject {
  ComponentHandle backend;  ///< outlives what it opened
  std::unique_ptr<LanguageModel> model;
  const Artifact* artifact = nullptr;
};
/// Throws Error(invalid_input) unless exactly one of both ports is given and its tokenizer is the data's.
Subject open_subject(Context& context, const std::string& model_port, const std::string& package_port);

/// Walks all windows. `sums` gives of a window, by its number, one sum over the counted tokens for each of `names`; what comes back
/// are the means of the windows, in the same order, weighted by their counted tokens. Progress tells `shown` of the first mean
/// under the name `label`. States the figure "tokens" and keeps "samples.tokens". Throws Error(failed) naming a sum that is not
/// finite.
std::vector<Samples> sample_windows(Context& context, const TokenWindows& windows, const std::vector<std::string>& names,
                                    const std::string& label, double (*shown)(double mean),
                                    const std::function<std::vector<double>(std::size_t number)>& sums);

/// States a figure with its 95 % interval over windows (`NAME`, `NAME_low`, `NAME_high`; the bounds need two windows) and keeps the
/// samples as "samples.DETAIL". `of` makes the figure out of the mean, monotonously (exp for a perplexity).
void state_quality(
    Context& context, const std::string& name, const std::string& detail, const Samples& samples,
    double (*of)(double mean) = [](double mean) { return mean; });

}  // namespace espalier
