#include <ATen/ops/gather.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "formats/model_artifact.h"
#include "formats/package.h"
#include "run/dataset.h"
#include "run/runtime.h"
#include "sdk/plugin.h"

namespace espalier {
namespace {

/// A window of the token stream: which tokens are fed, and from which on they are counted.
struct Window {
  std::int64_t begin, count;  ///< tokens fed: [begin, begin + count)
  std::int64_t first;         ///< first token of the window whose likelihood counts
};

/// Every `stride` tokens a window of `length`. Where windows overlap, a token is counted once, in the first window that reaches it:
/// the rest of the window is its context. Token 0 of a window is never counted: nothing stands before it.
std::vector<Window> windows_of(std::int64_t tokens, std::int64_t length, std::int64_t stride, std::int64_t limit) {
  std::vector<Window> windows;
  for (std::int64_t begin = 0; begin + length <= tokens; begin += stride) {
    if (limit > 0 && static_cast<std::int64_t>(windows.size()) == limit) break;
    windows.push_back({begin, length, begin == 0 ? 1 : std::max<std::int64_t>(1, length - stride)});
  }
  return windows;
}

/// Σ of -ln p over the tokens of one window from `first` on. `bos`: a token fed before the window's own; -1 for none.
double negative_log_likelihood(LanguageModel& model, std::span<const std::int32_t> tokens, std::int64_t first, std::int64_t bos) {
  std::vector<std::int64_t> fed;
  if (bos >= 0) fed.push_back(bos);
  fed.insert(fed.end(), tokens.begin(), tokens.end());
  model.reset();
  const at::Tensor logits = model.feed(fed, true);
  const auto lead = static_cast<std::int64_t>(fed.size() - tokens.size());
  const std::vector<std::int64_t> targets(fed.begin() + lead + first, fed.end());
  const auto count = static_cast<std::int64_t>(targets.size());
  const at::Tensor rows = logits.narrow(0, lead + first - 1, count);
  const at::Tensor chosen = at::gather(rows, 1, at::tensor(at::ArrayRef<std::int64_t>(targets), at::kLong).unsqueeze(1)).squeeze(1);
  return at::sum(at::sub(at::logsumexp(rows, 1).to(at::kDouble), chosen.to(at::kDouble))).item<double>();
}

/// Perplexity of a model in the project's own runner, or of a package in the runtime that it is deployed with: exp of the mean
/// cross-entropy over the tokens 1 … window-1 of each window.
class Perplexity final : public Component {
 public:
  void run(Context& context) override {
    const bool model = context.has_input("model");
    if (model == context.has_input("package"))
      throw_invalid("give exactly one of model and package", "evaluator/perplexity", "model = \"@stage\" or package = \"@stage\"");
    const Artifact& subject = context.input(model ? "model" : "package");
    check_tokenizers(subject, context.input("data"));
    const TokenDataset data(context, context.input("data"));

    const Params& params = context.params();
    const std::int64_t length = params.has("window") ? params.integer("window") : data.sequence();
    const std::int64_t stride = params.has("stride") ? params.integer("stride") : length;
    if (stride > length)
      throw_invalid(fmt::format("stride {} is larger than the window of {}", stride, length), "evaluator/perplexity",
                    "tokens between windows would be left out");
    const std::int64_t bos = params.integer("bos");
    const auto tokens = data.tokens();
    const std::vector<Window> windows =
        windows_of(static_cast<std::int64_t>(tokens.size()), length, stride, params.integer("limit"));
    if (windows.empty())
      throw_invalid(fmt::format("the data holds {} tokens, not one window of {}", tokens.size(), length), "evaluator/perplexity",
                    "give more text or a smaller window");

    const ComponentHandle backend = model ? ComponentHandle{} : context.component_for(subject);  // outlives what it opens
    const OpenOptions options{context.threads(), false};
    const std::unique_ptr<LanguageModel> runner =
        model ? language_model(load_model(context, subject), options)
              : backend.as<Runtime>().open_language_model(unpack(context, subject), options);
    double sum = 0;
    std::int64_t counted = 0;
    Json each = Json::array();
    for (std::size_t w = 0; w < windows.size(); ++w) {
      context.check_cancelled();
      const Window& window = windows[w];
      const double nll = negative_log_likelihood(
          *runner, tokens.subspan(static_cast<std::size_t>(window.begin), static_cast<std::size_t>(window.count)), window.first,
          bos);
      if (!std::isfinite(nll))
        throw Error(ErrorCode::failed, fmt::format("the likelihood of window {} is not a finite number", w), "evaluator/perplexity",
                    "the model's logits hold infinities or NaN");
      sum += nll;
      counted += window.count - window.first;
      each.push_back(nll / static_cast<double>(window.count - window.first));
      context.progress({w + 1, windows.size(), "windows", {{"perplexity", std::exp(sum / static_cast<double>(counted))}}});
    }
    const double mean = sum / static_cast<double>(counted);
    context.figure("perplexity", std::exp(mean));
    context.figure("nll", mean);
    context.figure("tokens", static_cast<double>(counted));
    context.detail("samples.nll", each);
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
