#include <ATen/TensorOperators.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/sum.h>
#include <fmt/format.h>

#include <algorithm>

#include "run/token_windows.h"
#include "sdk/plugin.h"

namespace espalier {
namespace {

/// What two models say about the same tokens, summed over positions.
struct Agreement {
  double kl = 0;    ///< Σ KL(original‖candidate), nats
  double top1 = 0;  ///< positions at which both prefer the same token
};

/// `original`, `candidate`: logits [n, vocabulary]. In f64, a few rows at a time: beside the logits themselves only those rows
/// stand in memory, and a KL of 1e-7 is still one.
Agreement compare(const at::Tensor& original, const at::Tensor& candidate) {
  constexpr std::int64_t rows = 32;
  Agreement sum;
  for (std::int64_t from = 0; from < original.size(0); from += rows) {
    const std::int64_t count = std::min(rows, original.size(0) - from);
    const at::Tensor a = original.narrow(0, from, count), b = candidate.narrow(0, from, count);
    const at::Tensor log_p = at::log_softmax(a, 1, at::kDouble), log_q = at::log_softmax(b, 1, at::kDouble);
    sum.kl += at::sum(at::exp(log_p) * (log_p - log_q)).item<double>();
    sum.top1 += static_cast<double>(at::sum(at::eq(at::argmax(a, 1), at::argmax(b, 1))).item<std::int64_t>());
  }
  return sum;
}

/// How far a model is from the original that it was made of, on the same tokens: Kullback-Leibler divergence of the next token's
/// distribution, and how often both prefer the same token. Unlike a perplexity, neither can be bought by training on the text.
class AgreementWithOriginal final : public Component {
 public:
  void run(Context& context) override {
    const TokenDataset data(context, context.input("data"));
    const TokenWindows windows(context, data);
    const Subject original = open_subject(context, "original", "original_package");
    const Subject candidate = open_subject(context, "model", "package");
    check_pair(*original.artifact, *candidate.artifact);
    const auto itself = [](double mean) { return mean; };
    const auto series = sample_windows(context, windows, {"divergence", "agreement"}, "kl", itself, [&](std::size_t w) {
      const at::Tensor theirs = windows.logits(*original.model, w), own = windows.logits(*candidate.model, w);
      if (theirs.size(1) != own.size(1))
        throw_invalid(fmt::format("the original gives logits of {} tokens, the candidate of {}", theirs.size(1), own.size(1)),
                      "evaluator/agreement", "compare models of the same vocabulary");
      const Agreement agreement = compare(theirs, own);
      return std::vector<double>{agreement.kl, agreement.top1};
    });
    state_quality(context, "kl", "kl", series[0]);
    state_quality(context, "top1_agreement", "top1_agreement", series[1]);
  }

 private:
  static void check_pair(const Artifact& original, const Artifact& candidate) {
    const std::string left = original.meta.value("tokenizer", ""), right = candidate.meta.value("tokenizer", "");
    if (!left.empty() && !right.empty() && left != right)
      throw_invalid(fmt::format("the original's tokenizer is {}, the candidate's {}", left, right), "evaluator/agreement",
                    "the same number means another token to each: compare models of one tokenizer");
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "agreement", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "How far a language model is from the one that it was made of",
  "components": [ {
    "name": "evaluator/agreement", "version": "0.1.0",
    "summary": "KL divergence from the original, and how often both prefer the same token",
    "inputs": [
      {"name": "model", "type": "model", "required": false, "many": false, "help": "the candidate, run by the project's own runner; exactly one of model and package"},
      {"name": "package", "type": "package", "required": false, "many": false, "help": "the candidate, run as it is deployed"},
      {"name": "original", "type": "model", "required": false, "many": false, "help": "what it is compared with; exactly one of original and original_package"},
      {"name": "original_package", "type": "package", "required": false, "many": false, "help": "the same, run as it is deployed"},
      {"name": "data", "type": "dataset", "required": true, "many": false, "help": "held-out tokens"} ],
    "outputs": [],
    "parameters": [
)json" ESPALIER_WINDOW_PARAMETERS R"json(    ],
    "depends": {"seed": false, "threads": true, "runtimes": ["torch"]},
    "byte_exact": false, "exclusive": false,
    "estimate": {"memory": "1.3e8 + 2 * (model.bytes + original.bytes) + package.open_bytes + original_package.open_bytes + 3000 * max(original.output_elements, original_package.output_elements) + if(window, window, data.sequence) * 4 * (model.output_elements + original.output_elements + 1.8 * (package.output_elements + original_package.output_elements))",
                 "seconds": "1.5 + (model.bytes + package.bytes + original.bytes + original_package.bytes) / 3e8 + if(limit, min(limit, data.count), data.count) * data.sequence * (2 * (model.macs + package.macs + original.macs + original_package.macs) / 0.6 + 8e3 * max(original.output_elements, original_package.output_elements)) / machine.flops",
                 "memory_base": 8e8, "memory_per_byte": 2.2, "output_per_byte": 0}
  } ] })json",
                ESPALIER_COMPONENT("evaluator/agreement", AgreementWithOriginal));

}  // namespace espalier
