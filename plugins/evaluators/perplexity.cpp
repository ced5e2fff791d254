#include <ATen/ops/gather.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/sum.h>

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
    const auto perplexity = [](double mean) { return std::exp(mean); };
    const Samples nll = sample_windows(context, windows, {"likelihood"}, "perplexity", perplexity, [&](std::size_t w) {
      const at::Tensor logits = windows.logits(*subject.model, w);
      const at::Tensor chosen = at::gather(logits, 1, windows.targets(w).unsqueeze(1)).squeeze(1);
      const at::Tensor each = at::sub(at::logsumexp(logits, 1).to(at::kDouble), chosen.to(at::kDouble));
      return std::vector<double>{at::sum(each).item<double>()};
    })[0];
    state_quality(context, "perplexity", "nll", nll, perplexity);
    context.figure("nll", nll.mean());
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
    "estimate": {"memory": "1e8 + 2 * model.bytes + package.open_bytes + if(window, window, data.sequence) * 4 * (1.3 * model.output_elements + 3.2 * package.output_elements)",
                 "seconds": "2 + if(limit, min(limit, data.count), data.count) * data.sequence * 2 * (model.macs + package.macs) / (0.6 * machine.flops)",
                 "memory_base": 6e8, "memory_per_byte": 2.2, "output_per_byte": 0}
  } ] })json",
                ESPALIER_COMPONENT("evaluator/perplexity", Perplexity));

}  // namespace espalier
