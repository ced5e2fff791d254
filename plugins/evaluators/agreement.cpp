// How far a model says what another one says: on the same tokens, KL divergence of the next-token distributions and the share of
// positions where both put the same token first. Unlike perplexity it does not reward what training on the text's kind has taught.
#include <ATen/TensorOperators.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/log_softmax.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "run/text_windows.h"
#include "sdk/plugin.h"

namespace espalier {
namespace {

constexpr std::int64_t kPiece = 1 << 21;  // logits compared at once: a vocabulary times a window never stands in memory again

struct Agreement {
  double kl = 0, same = 0;
};

/// Σ over positions of KL(original ‖ candidate) in nats, and how many positions have the same first token.
Agreement compare(const at::Tensor& original, const at::Tensor& candidate) {
  Agreement sum;
  const std::int64_t rows = original.size(0),
                     step = std::max<std::int64_t>(1, kPiece / std::max<std::int64_t>(1, original.size(1)));
  for (std::int64_t first = 0; first < rows; first += step) {
    const std::int64_t count = std::min(step, rows - first);
    const at::Tensor wanted = original.narrow(0, first, count), given = candidate.narrow(0, first, count);
    const at::Tensor p = at::log_softmax(wanted, 1), q = at::log_softmax(given, 1);
    sum.kl += (at::exp(p) * (p - q)).sum(1).to(at::kDouble).sum().item<double>();
    sum.same += at::argmax(wanted, 1).eq(at::argmax(given, 1)).sum().item<double>();
  }
  return sum;
}

class AgreementEvaluator final : public Component {
 public:
  void run(Context& context) override {
    const std::string who = "evaluator/agreement";
    const TextWindows windows(context, who);
    TextSubject candidate(context, "model", "package", who), original(context, "original", "original_package", who);
    const std::int64_t bos = context.params().integer("bos");
    Pieces kl, same;
    for (std::size_t w = 0; w < windows.size(); ++w) {
      context.check_cancelled();
      const at::Tensor wanted = original.predict(windows, windows[w], bos), given = candidate.predict(windows, windows[w], bos);
      if (wanted.size(1) != given.size(1))
        throw_invalid(fmt::format("the original knows {} tokens, the candidate {}", wanted.size(1), given.size(1)), who,
                      "compare models with one vocabulary");
      const Agreement sum = compare(wanted, given);
      if (!std::isfinite(sum.kl))
        throw Error(ErrorCode::failed, fmt::format("the divergence in window {} is not a finite number", w), who,
                    "one of the two models' logits hold infinities or NaN");
      const auto count = static_cast<double>(windows[w].counted());
      kl.sums.push_back(sum.kl);
      kl.counts.push_back(count);
      same.sums.push_back(sum.same);
      same.counts.push_back(count);
      context.progress({w + 1, windows.size(), "windows", {{"kl", kl.mean()}, {"top1_agreement", same.mean()}}});
    }
    state_mean(context, "kl", "kl", kl);
    state_mean(context, "top1_agreement", "top1_agreement", same);
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "agreement", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Agreement of a language model with its original",
  "components": [ {
    "name": "evaluator/agreement", "version": "0.1.0",
    "summary": "KL divergence from an original model and share of equal first tokens, on the same text",
    "inputs": [
      {"name": "model", "type": "model", "required": false, "help": "the candidate as a model, run by the project's own runner; exactly one of model and package"},
      {"name": "package", "type": "package", "required": false, "help": "the candidate as a package, run as it is deployed"},
      {"name": "original", "type": "model", "required": false, "help": "what it is compared with, as a model; exactly one of original and original_package"},
      {"name": "original_package", "type": "package", "required": false, "help": "what it is compared with, as a package"},
      {"name": "data", "type": "dataset", "help": "tokens that neither was trained on"} ],
    "outputs": [],
    "parameters": [
      {"name": "window", "type": "integer", "min": 2, "unit": "tokens", "help": "tokens of a window; the data's own sequence length when left out"},
      {"name": "stride", "type": "integer", "min": 1, "unit": "tokens", "help": "from one window's start to the next one's; the window when left out"},
      {"name": "limit", "type": "integer", "default": 0, "min": 0, "help": "windows to use; 0: all"},
      {"name": "bos", "type": "integer", "default": -1, "min": -1, "help": "id of a token fed before each window and not counted; -1: none"}
    ],
    "depends": {"seed": false, "threads": true, "runtimes": ["torch"]},
    "byte_exact": false, "exclusive": false,
    "estimate": {"memory_base": 9e8, "memory_per_byte": 2.2, "output_per_byte": 0}
  } ] })json",
                ESPALIER_COMPONENT("evaluator/agreement", AgreementEvaluator));

}  // namespace espalier
