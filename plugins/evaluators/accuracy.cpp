// Share of examples that a classifier gets right, with its interval; against a baseline on the same examples, paired.
#include <ATen/TensorOperators.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/topk.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "run/array_subject.h"
#include "sdk/plugin.h"
#include "sdk/statistics.h"

namespace espalier {
namespace {

constexpr std::string_view kWho = "evaluator/accuracy";
constexpr std::int64_t kTop = 5;

/// Wilson's score interval of a proportion (1927) at 95 %: honest near 0 and 1, where the normal one is not.
Interval wilson(double right, double count) {
  constexpr double kZ = 1.959963984540054;
  const double p = right / count, z2 = kZ * kZ / count;
  const double middle = (p + z2 / 2) / (1 + z2);
  const double half = kZ / (1 + z2) * std::sqrt(p * (1 - p) / count + z2 / (4 * count));
  return {p, std::max(0.0, middle - half), std::min(1.0, middle + half)};
}

/// McNemar's exact test (1947): of `lost + won` examples that only one of two got right, how unlikely so uneven a split is.
double mcnemar(std::int64_t lost, std::int64_t won) {
  const std::int64_t n = lost + won;
  double tail = 0;
  for (std::int64_t k = 0; k <= std::min(lost, won); ++k) {
    const auto log_factorial = [](std::int64_t m) { return std::lgamma(static_cast<double>(m) + 1); };
    tail += std::exp(log_factorial(n) - log_factorial(k) - log_factorial(n - k) - static_cast<double>(n) * std::log(2.0));
  }
  return std::min(1.0, 2 * tail);
}

/// The answers to every example, in the data's order.
struct Answers {
  std::vector<std::int64_t> given, wanted;
  std::vector<double> right, among_first;  ///< 1 or 0
  std::int64_t classes = 0;
  double correct() const { return std::accumulate(right.begin(), right.end(), 0.0); }
};

class Accuracy final : public Component {
 public:
  void run(Context& context) override {
    const Artifact* subject = one_of_ports(context, "model", "package", true, std::string(kWho));
    const Artifact* baseline = one_of_ports(context, "baseline", "baseline_package", false, std::string(kWho));
    const ArrayDataset data(context, context.input("data"));
    const Answers own = answer(context, *subject, data, "model");
    state(context, own, data.classes());
    if (baseline) compare(context, own, answer(context, *baseline, data, "baseline"));
  }

 private:
  static Answers answer(Context& context, const Artifact& subject, const ArrayDataset& data, const std::string& port) {
    ArraySubject classifier(context, subject, port);
    Answers answers;
    each_batch(context, data, [&](const TensorMap& rows, std::int64_t held) {
      const auto labels = rows.find("labels");
      if (labels == rows.end()) throw_invalid("the data has no labels", "port data", "give source/arrays labels");
      if (labels->second.scalar_type() != at::kLong || labels->second.dim() != 1)
        throw_invalid("the data's labels are no classes", "port data", "accuracy is of classifiers: one whole number an example");
      const at::Tensor scores = classifier.answer(rows);
      if (scores.dim() != 2)
        throw_invalid(fmt::format("the first output has shape [{}]", fmt::join(scores.sizes(), ", ")), "port " + port,
                      "accuracy is of classifiers: [examples, classes]");
      add(answers, scores.narrow(0, 0, held), labels->second.narrow(0, 0, held), port);
      context.progress({answers.right.size(),
                        static_cast<std::uint64_t>(walked(context, data)),
                        port == "model" ? "examples" : "examples of the baseline",
                        {{"accuracy", answers.correct() / static_cast<double>(answers.right.size())}}});
    });
    return answers;
  }

  static void add(Answers& answers, const at::Tensor& scores, const at::Tensor& labels, const std::string& port) {
    answers.classes = scores.size(1);
    if (labels.max().item<std::int64_t>() >= answers.classes || labels.min().item<std::int64_t>() < 0)
      throw_invalid(fmt::format("a label lies outside the model's {} classes", answers.classes), "port data");
    const at::Tensor first = at::argmax(scores, 1);
    const bool top = answers.classes >= 2 * kTop;
    const at::Tensor among = top ? std::get<1>(at::topk(scores, kTop, 1)).eq(labels.unsqueeze(1)).any(1) : at::Tensor();
    for (std::int64_t i = 0; i < labels.size(0); ++i) {
      answers.given.push_back(first[i].item<std::int64_t>());
      answers.wanted.push_back(labels[i].item<std::int64_t>());
      answers.right.push_back(answers.given.back() == answers.wanted.back() ? 1.0 : 0.0);
      if (top) answers.among_first.push_back(among[i].item<bool>() ? 1.0 : 0.0);
    }
  }

  static void state(Context& context, const Answers& answers, const std::vector<std::string>& names) {
    const auto count = static_cast<double>(answers.right.size());
    const Interval interval = wilson(answers.correct(), count);
    context.figure("accuracy", answers.correct() / count);
    context.figure("accuracy_low", interval.low);
    context.figure("accuracy_high", interval.high);
    if (!answers.among_first.empty())
      context.figure("accuracy_top5", std::accumulate(answers.among_first.begin(), answers.among_first.end(), 0.0) / count);
    context.figure("examples", count);
    context.detail("samples.correct", answers.right);
    constexpr std::int64_t widest = 100;  // a report's table
    if (answers.classes > widest) return;
    const auto n = static_cast<std::size_t>(answers.classes);
    std::vector<std::vector<std::int64_t>> matrix(n, std::vector<std::int64_t>(n, 0));
    for (std::size_t i = 0; i < answers.given.size(); ++i)
      ++matrix[static_cast<std::size_t>(answers.wanted[i])][static_cast<std::size_t>(answers.given[i])];
    const auto name = [&](std::size_t c) { return c < names.size() ? names[c] : std::to_string(c); };
    Json columns{"is \\ said"}, rows = Json::array();
    for (std::size_t c = 0; c < n; ++c) {
      columns.push_back(name(c));
      Json row{name(c)};
      for (const std::int64_t times : matrix[c]) row.push_back(times);
      rows.push_back(std::move(row));
    }
    context.detail("confusion", {{"columns", columns}, {"rows", rows}});
  }

  static void compare(Context& context, const Answers& own, const Answers& baseline) {
    std::int64_t lost = 0, won = 0;  // right in one of the two only
    for (std::size_t i = 0; i < own.right.size(); ++i) {
      lost += baseline.right[i] > own.right[i];
      won += own.right[i] > baseline.right[i];
    }
    const auto count = static_cast<double>(own.right.size()), apart = static_cast<double>(lost - won);
    context.figure("accuracy_baseline", baseline.correct() / count);
    context.figure("accuracy_drop_points", 100 * apart / count);
    const std::array<Samples, 2> both{Samples{baseline.right, {}}, Samples{own.right, {}}};
    if (const auto drop = bootstrap(both, [](std::span<const double> means) { return 100 * (means[0] - means[1]); })) {
      context.figure("accuracy_drop_points_low", drop->low);
      context.figure("accuracy_drop_points_high", drop->high);
    }
    context.figure("accuracy_drop_p", mcnemar(lost, won));
    context.detail("paired", {{"columns", {"lost", "won", "examples"}}, {"rows", Json::array({Json::array({lost, won, count})})}});
    context.detail("samples.baseline_correct", baseline.right);
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "accuracy", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Accuracy of classifiers, as models and as they are deployed",
  "components": [ {
    "name": "evaluator/accuracy", "version": "0.1.0",
    "summary": "share of labelled examples that a classifier gets right, its 95 % interval, and what was lost against a baseline",
    "inputs": [
      {"name": "model", "type": "model", "required": false, "help": "a model, run by the project's own runner; exactly one of model and package"},
      {"name": "package", "type": "package", "required": false, "help": "a package, run as it is deployed"},
      {"name": "baseline", "type": "model", "required": false, "help": "a model to compare with on the same examples; or baseline_package"},
      {"name": "baseline_package", "type": "package", "required": false, "help": "a package to compare with on the same examples"},
      {"name": "data", "type": "dataset", "help": "examples with classes as labels (source/arrays), not trained on"} ],
    "outputs": [],
    "parameters": [
      {"name": "batch", "type": "integer", "default": 64, "min": 1, "max": 65536, "unit": "examples", "help": "examples run at once; a package with a fixed batch needs that one"},
      {"name": "limit", "type": "integer", "default": 0, "min": 0, "unit": "examples", "help": "use the first examples only; 0: all"}
    ],
    "depends": {"seed": false, "threads": true, "runtimes": ["torch"]},
    "byte_exact": false, "exclusive": false,
    "estimate": {"memory": "1.01e8 + data.bytes + 1.3 * (model.bytes + baseline.bytes) + package.open_bytes + baseline_package.open_bytes + 0.85 * batch * max(max(model.activation_bytes, package.activation_bytes), max(baseline.activation_bytes, baseline_package.activation_bytes))",
                 "seconds": "0.1 + ceil(if(limit, min(limit, data.count), data.count) / batch) * batch * 2 * (model.macs + package.macs + baseline.macs + baseline_package.macs) / (0.65 * machine.flops)",
                 "memory_base": 6e8, "memory_per_byte": 2.2, "output_per_byte": 0}
  } ] })json",
                ESPALIER_COMPONENT("evaluator/accuracy", Accuracy));

}  // namespace espalier
