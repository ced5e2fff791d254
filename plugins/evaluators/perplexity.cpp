#include <ATen/ops/gather.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/sum.h>
#include <fmt/format.h>

#include <cmath>

#include "run/token_windows.h"
#include "sdk/plugin.h"

namespace espalier {
namespace {

/// Perplexity of a model in the project's own runner, or of a package in the runtime that it is deployed with: exp of the mean
/// cross-entropy over the tokens 1 … window-1 of each window.
class Perplexity final : public Component {
 public:
  void run(Context& context) override {
    const TokenDataset data(context, context.input("data"));
    const TokenWindows windows(context, data);
    const Subject subject = open_subject(context, "model", "package");
    Samples samples;
    double sum = 0, counted = 0;
    for (std::size_t w = 0; w < windows.size(); ++w) {
      context.check_cancelled();
      const at::Tensor logits = windows.logits(*subject.model, w);
      const at::Tensor chosen = at::gather(logits, 1, windows.targets(w).unsqueeze(1)).squeeze(1);
      const double nll = at::sum(at::sub(at::logsumexp(logits, 1).to(at::kDouble), chosen.to(at::kDouble))).item<double>();
      if (!std::isfinite(nll))
        throw Error(ErrorCode::failed, fmt::format("the likelihood of window {} is not a finite number", w), "evaluator/perplexity",
                    "the model's logits hold infinities or NaN");
      sum += nll;
      counted += static_cast<double>(windows[w].counted());
      samples.values.push_back(nll / static_cast<double>(windows[w].counted()));
      samples.weights.push_back(static_cast<double>(windows[w].counted()));
      context.progress({w + 1, windows.size(), "windows", {{"perplexity", std::exp(sum / counted)}}});
    }
    state_quality(context, "perplexity", "nll", samples, [](double mean) { return std::exp(mean); });
    context.figure("nll", samples.mean());
    context.figure("tokens", counted);
    context.detail("samples.tokens", samples.weights);
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
)json" ESPALIER_WINDOW_PARAMETERS R"json(    ],
    "depends": {"seed": false, "threads": true, "runtimes": ["torch"]},
    "byte_exact": false, "exclusive": false,
    "estimate": {"memory": "if(package.bytes, 5.4e8 + 2 * package.bytes, 3.6e8 + model.bytes)",
                 "seconds": "2 + if(limit, min(limit, data.count), data.count) * data.sequence * 2 * (model.macs + package.macs) / (0.6 * machine.flops)",
                 "memory_base": 6e8, "memory_per_byte": 2.2, "output_per_byte": 0}
  } ] })json",
                ESPALIER_COMPONENT("evaluator/perplexity", Perplexity));

}  // namespace espalier
