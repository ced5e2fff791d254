#include <ATen/ops/gather.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <cmath>

#include "run/text_windows.h"
#include "sdk/plugin.h"

namespace espalier {
namespace {

/// Σ of -ln p over the counted tokens of a window.
double negative_log_likelihood(const at::Tensor& logits, const std::vector<std::int64_t>& targets) {
  const at::Tensor chosen =
      at::gather(logits, 1, at::tensor(at::ArrayRef<std::int64_t>(targets), at::kLong).unsqueeze(1)).squeeze(1);
  return at::sum(at::sub(at::logsumexp(logits, 1).to(at::kDouble), chosen.to(at::kDouble))).item<double>();
}

/// Perplexity of a model in the project's own runner, or of a package in the runtime that it is deployed with: exp of the mean
/// cross-entropy over the tokens 1 … window-1 of each window, with a bootstrap interval over windows.
class Perplexity final : public Component {
 public:
  void run(Context& context) override {
    const std::string who = "evaluator/perplexity";
    const TextWindows windows(context, who);
    TextSubject subject(context, "model", "package", who);
    const std::int64_t bos = context.params().integer("bos");
    Pieces nll;
    for (std::size_t w = 0; w < windows.size(); ++w) {
      context.check_cancelled();
      const double sum = negative_log_likelihood(subject.predict(windows, windows[w], bos), windows.targets(windows[w]));
      if (!std::isfinite(sum))
        throw Error(ErrorCode::failed, fmt::format("the likelihood of window {} is not a finite number", w), who,
                    "the model's logits hold infinities or NaN");
      nll.sums.push_back(sum);
      nll.counts.push_back(static_cast<double>(windows[w].counted()));
      context.progress({w + 1, windows.size(), "windows", {{"perplexity", std::exp(nll.mean())}}});
    }
    state_mean(context, "perplexity", "nll", nll, [](double value) { return std::exp(value); });
    double tokens = 0;
    for (const double count : nll.counts) tokens += count;
    context.figure("nll", nll.mean());
    context.figure("tokens", tokens);
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "perplexity", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Perplexity of causal language models, as models and as they are deployed",
  "components": [ {
    "name": "evaluator/perplexity", "version": "0.1.0",
    "summary": "exp of the mean next-token cross-entropy on held-out tokens",
    "inputs": [
      {"name": "model", "type": "model", "required": false, "many": false, "help": "a model, run by the project's own runner; exactly one of model and package"},
      {"name": "package", "type": "package", "required": false, "many": false, "help": "a package, run as it is deployed"},
      {"name": "data", "type": "dataset", "required": true, "many": false, "help": "held-out tokens"} ],
    "outputs": [],
    "parameters": [
      {"name": "window", "type": "integer", "min": 2, "unit": "tokens", "help": "tokens of a window; the data's own sequence length when left out"},
      {"name": "stride", "type": "integer", "min": 1, "unit": "tokens", "help": "from one window's start to the next one's; the window when left out. A smaller stride gives every token more context; each is counted once"},
      {"name": "limit", "type": "integer", "default": 0, "min": 0, "help": "windows to use; 0: all"},
      {"name": "bos", "type": "integer", "default": -1, "min": -1, "help": "id of a token fed before each window and not counted; -1: none"}
    ],
    "depends": {"seed": false, "threads": true, "runtimes": ["torch"]},
    "byte_exact": false, "exclusive": false,
    "estimate": {"memory_base": 6e8, "memory_per_byte": 2.2, "output_per_byte": 0}
  } ] })json",
                ESPALIER_COMPONENT("evaluator/perplexity", Perplexity));

}  // namespace espalier
