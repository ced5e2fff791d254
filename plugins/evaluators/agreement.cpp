#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/ge.h>
#include <ATen/ops/log.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/lt.h>
#include <ATen/ops/sum.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "run/array_subject.h"
#include "run/token_windows.h"
#include "sdk/plugin.h"

namespace espalier {
namespace {

constexpr const char* kWho = "evaluator/agreement";

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

/// How much a series of shares that classes have may be off from 1 in sum, in f32 over thousands of classes.
constexpr double kShareSum = 1e-3;

/// Answers [n, …] as rows of scores over classes, [n · positions, classes]. Shares (no element below 0, sums of 1) become their
/// logarithms, which a softmax turns back into them.
at::Tensor class_rows(const at::Tensor& answer, std::int64_t axis) {
  const at::Tensor rows = answer.movedim(axis, -1).reshape({-1, answer.size(axis)});
  const bool shares = at::ge(rows, 0).all().item<bool>() && at::lt(at::abs(at::sum(rows, 1) - 1), kShareSum).all().item<bool>();
  return shares ? at::log(at::clamp_min(rows, std::numeric_limits<float>::min())) : rows;
}

/// How far a model is from the original that it was made of, on the same examples: Kullback-Leibler divergence of what it says (of
/// the next token, or of the class), and how often both prefer the same; of models that answer with values, the relative error and
/// the cosine. Unlike a perplexity or an accuracy, none can be bought by training on the data.
class AgreementWithOriginal final : public Component {
 public:
  void run(Context& context) override {
    if (context.input("data").meta.value("kind", "") == "arrays") return run_arrays(context);
    const TokenDataset data(context, context.input("data"));
    const TokenWindows windows(context, data);
    const Subject original = open_subject(context, "original", "original_package");
    const Subject candidate = open_subject(context, "model", "package");
    check_pair(*original.artifact, *candidate.artifact);
    const auto itself = [](double mean) { return mean; };
    const auto series = sample_windows(context, windows, {"divergence", "agreement"}, "kl", itself, [&](std::size_t w) {
      const at::Tensor theirs = windows.logits(*original.model, w), own = windows.logits(*candidate.model, w);
      if (theirs.size(1) != own.size(1))
        throw_invalid(fmt::format("the original gives logits of {} tokens, the candidate of {}", theirs.size(1), own.size(1)), kWho,
                      "compare models of the same vocabulary");
      const Agreement agreement = compare(theirs, own);
      return std::vector<double>{agreement.kl, agreement.top1};
    });
    state_quality(context, "kl", "kl", series[0]);
    state_quality(context, "top1_agreement", "top1_agreement", series[1]);
  }

 private:
  static void run_arrays(Context& context) {
    for (const char* name : {"window", "stride"}) {
      if (context.params().has(name))
        throw_invalid(fmt::format("{} is of tokens, the data holds arrays", name), fmt::format("parameter {}", name));
    }
    const ArrayDataset data(context, context.input("data"));
    ArraySubject original(context, *one_of_ports(context, "original", "original_package", true, kWho), "original");
    ArraySubject candidate(context, *one_of_ports(context, "model", "package", true, kWho), "model");
    const std::int64_t axis = context.params().integer("class_axis");
    const bool values = context.params().text("answers") == "values";
    std::map<std::string, Samples> series;
    each_batch(context, data, [&](const TensorMap& batch, std::int64_t held) {
      const at::Tensor theirs = original.answer(batch).to(at::kFloat), own = candidate.answer(batch).to(at::kFloat);
      if (theirs.sizes() != own.sizes())
        throw_invalid(fmt::format("the original answers [{}], the candidate [{}]", fmt::join(theirs.sizes(), ", "),
                                  fmt::join(own.sizes(), ", ")),
                      kWho, "compare models of the same outputs");
      if (theirs.dim() == 0 || theirs.size(0) < held)
        throw_invalid("the answer's first axis does not count the examples", "port original");
      for (std::int64_t i = 0; i < held; ++i) {
        for (const auto& [name, value] : values ? of_values(theirs[i], own[i]) : of_classes(theirs[i], own[i], axis))
          series[name].values.push_back(value);
      }
      const auto& [shown, samples] = *series.begin();
      context.progress(
          {samples.values.size(), static_cast<std::uint64_t>(walked(context, data)), "examples", {{shown, samples.mean()}}});
    });
    context.figure("examples", static_cast<double>(series.begin()->second.values.size()));
    for (const auto& [name, samples] : series) state_quality(context, name, name, samples);
  }

  /// Of one example: KL and agreement, means over its positions; whether both prefer the same class at all of them.
  static std::map<std::string, double> of_classes(const at::Tensor& theirs, const at::Tensor& own, std::int64_t axis) {
    const std::int64_t rank = theirs.dim() + 1, at = axis < 0 ? axis + rank : axis;
    if (at < 1 || at >= rank)
      throw_invalid(
          fmt::format("class_axis = {} for answers of {} axes", axis, rank), "parameter class_axis",
          "the axis that the classes lie on, the examples' own not among them; answers = \"values\" for what has no classes");
    const at::Tensor left = class_rows(theirs, at - 1), right = class_rows(own, at - 1);
    const Agreement agreement = compare(left, right);
    const auto positions = static_cast<double>(left.size(0));
    return {{"kl", agreement.kl / positions},
            {"top1_agreement", agreement.top1 / positions},
            {"whole_agreement", agreement.top1 == positions ? 1.0 : 0.0}};
  }

  /// Of one example: ‖candidate − original‖ / ‖original‖, and the cosine between both.
  static std::map<std::string, double> of_values(const at::Tensor& theirs, const at::Tensor& own) {
    const at::Tensor a = theirs.flatten().to(at::kDouble), b = own.flatten().to(at::kDouble);
    const auto norm = [](const at::Tensor& t) { return std::sqrt(at::sum(t * t).item<double>()); };
    const double tiny = std::numeric_limits<double>::min();
    return {{"relative_error", norm(b - a) / std::max(norm(a), tiny)},
            {"cosine", at::sum(a * b).item<double>() / std::max(norm(a) * norm(b), tiny)}};
  }

  static void check_pair(const Artifact& original, const Artifact& candidate) {
    const std::string left = original.meta.value("tokenizer", ""), right = candidate.meta.value("tokenizer", "");
    if (!left.empty() && !right.empty() && left != right)
      throw_invalid(fmt::format("the original's tokenizer is {}, the candidate's {}", left, right), kWho,
                    "the same number means another token to each: compare models of one tokenizer");
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "agreement", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "How far a model is from the one that it was made of",
  "components": [ {
    "name": "evaluator/agreement", "version": "0.1.0",
    "summary": "KL divergence from the original, and how often both prefer the same token or class; of values their relative error",
    "inputs": [
      {"name": "model", "type": "model", "required": false, "many": false, "help": "the candidate, run by the project's own runner; exactly one of model and package"},
      {"name": "package", "type": "package", "required": false, "many": false, "help": "the candidate, run as it is deployed"},
      {"name": "original", "type": "model", "required": false, "many": false, "help": "what it is compared with; exactly one of original and original_package"},
      {"name": "original_package", "type": "package", "required": false, "many": false, "help": "the same, run as it is deployed"},
      {"name": "data", "type": "dataset", "required": true, "many": false, "help": "held-out examples: tokens, or arrays"} ],
    "outputs": [],
    "parameters": [
)json" ESPALIER_WINDOW_PARAMETERS R"json(,
      {"name": "batch", "type": "integer", "default": 16, "min": 1, "max": 65536, "unit": "examples", "help": "of arrays: examples run at once; a package with a fixed batch needs that one"},
      {"name": "answers", "type": "string", "default": "classes", "choices": ["classes", "values"], "help": "of arrays: whether the first output says classes (scores or shares) or values"},
      {"name": "class_axis", "type": "integer", "default": 1, "help": "of arrays: the axis of the first output that the classes lie on; -1: the last"}
    ],
    "depends": {"seed": false, "threads": true, "runtimes": ["torch"]},
    "byte_exact": false, "exclusive": false,
    "estimate": {"memory": "1.3e8 + 2 * (model.bytes + original.bytes) + package.open_bytes + original_package.open_bytes + 3000 * max(original.output_elements, original_package.output_elements) + if(window, window, data.sequence) * 4 * (model.output_elements + original.output_elements + 1.8 * (package.output_elements + original_package.output_elements))",
                 "seconds": "1.5 + (model.bytes + package.bytes + original.bytes + original_package.bytes) / 3e8 + if(limit, min(limit, data.count), data.count) * data.sequence * (2 * (model.macs + package.macs + original.macs + original_package.macs) / 0.6 + 8e3 * max(original.output_elements, original_package.output_elements)) / machine.flops",
                 "memory_base": 8e8, "memory_per_byte": 2.2, "output_per_byte": 0}
  } ] })json",
                ESPALIER_COMPONENT("evaluator/agreement", AgreementWithOriginal));

}  // namespace espalier
