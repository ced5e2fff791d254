// Several metrics as one: each is brought to one scale, then the weighted mean is taken.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "run/metric.h"
#include "sdk/plugin.h"

using namespace espalier;

namespace {

/// Places from 0 (least) to 1; equal scores share the mean of their places.
void to_ranks(std::vector<double>& scores) {
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return scores[a] < scores[b]; });
  std::vector<double> ranks(scores.size());
  const double last = std::max<double>(1, static_cast<double>(scores.size()) - 1);
  for (std::size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    while (end < order.size() && scores[order[end]] == scores[order[begin]]) ++end;
    for (std::size_t i = begin; i < end; ++i) ranks[order[i]] = static_cast<double>(begin + end - 1) / 2 / last;
  }
  scores = std::move(ranks);
}

void normalise(std::vector<double>& scores, const std::string& how) {
  if (how == "rank") return to_ranks(scores);
  const auto n = static_cast<double>(scores.size());
  double sum = 0, largest = 0, mean = 0, square = 0;
  for (double s : scores) sum += std::abs(s), largest = std::max(largest, std::abs(s)), mean += s / n;
  for (double s : scores) square += (s - mean) * (s - mean) / n;
  const double shift = how == "z" ? mean : 0, by = how == "z" ? std::sqrt(square) : how == "max" ? largest : sum / n;
  for (double& s : scores) s = by > 0 ? (s - shift) / by : 0.0;  // scores that are all alike say nothing
}

class Ensemble final : public MetricComponent {
 public:
  Scores score(Context& context, const Params& params, const Graph& graph, const std::vector<CoupledGroup>& groups,
               const Artifact* data) override {
    const auto metrics = context.components(params, "metrics");
    double total = 0;
    for (const auto& metric : metrics) total += metric.params.number("weight");
    if (!(total > 0))
      throw_invalid(metrics.empty() ? "metric/ensemble has no metrics" : "metric/ensemble: every metric's weight is 0",
                    "parameter metrics",
                    "such as: metrics = [{ use = \"metric/taylor\", weight = 0.7 }, { use = \"metric/magnitude\" }]");
    Scores result;
    for (const auto& group : groups) result[group.id].assign(group.units.size(), 0.0);
    for (const auto& metric : metrics) {
      context.check_cancelled();
      if (metric.params.number("weight") == 0) continue;
      const Scores own = metric.as<Metric>().score(context, metric.params, graph, groups, data);
      add(result, groups, metric.name, own, params, metric.params.number("weight") / total);
    }
    return result;
  }

 private:
  static void add(Scores& result, const std::vector<CoupledGroup>& groups, const std::string& name, const Scores& own,
                  const Params& params, double weight) {
    std::vector<double> all;
    for (const auto& group : groups) {
      const auto at = own.find(group.id);
      if (at == own.end() || at->second.size() != group.units.size())
        throw_invalid(fmt::format("{} gives no score for every unit of group \"{}\"", name, group.id), "parameter metrics",
                      "leave it out of the ensemble");
      for (const double s : at->second)
        if (!std::isfinite(s))
          throw_invalid(fmt::format("{} gives group \"{}\" a score that is not finite", name, group.id), "parameter metrics",
                        "look for overflow or NaN in the model and the data");
      all.insert(all.end(), at->second.begin(), at->second.end());
    }
    const auto how = params.text("normalise");
    const bool by_group = params.text("over") == "group";
    if (!by_group) normalise(all, how);
    std::size_t next = 0;
    for (const auto& group : groups) {
      std::vector<double> scores(all.begin() + std::ptrdiff_t(next), all.begin() + std::ptrdiff_t(next + group.units.size()));
      next += group.units.size();
      if (by_group) normalise(scores, how);
      auto& sums = result.at(group.id);
      for (std::size_t u = 0; u < scores.size(); ++u) sums[u] += weight * scores[u];
    }
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "ensemble", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Importance by several metrics",
  "components": [{
    "name": "metric/ensemble", "version": "0.1.0",
    "summary": "The weighted mean of several metrics, each brought to one scale",
    "inputs": [
      {"name": "model", "type": "model", "help": "the model whose units are scored"},
      {"name": "data", "type": "dataset", "required": false, "help": "for metrics that look at data"}
    ],
    "outputs": [
      {"name": "scores", "type": "scores", "help": "a score per unit, by group"}
    ],
    "parameters": [
      {"name": "metrics", "type": "list<component>", "kind": "metric", "required": true, "help": "the metrics, each with its parameters and a weight",
       "fields": [{"name": "weight", "type": "number", "default": 1, "min": 0, "max": 1e6, "help": "share in the mean, relative to the other weights"}]},
      {"name": "normalise", "type": "string", "default": "mean", "choices": ["mean", "max", "rank", "z"], "help": "divide by the mean or the largest magnitude; or take places from 0 to 1; or deviations from the mean"},
      {"name": "over", "type": "string", "default": "group", "choices": ["group", "model"], "help": "normalise each group by itself, or all together (layers stay comparable under global ranking)"}
    ],
    "depends": {"seed": false, "threads": true, "runtimes": ["torch"]},
    "estimate": {"memory": "metrics.memory",
                 "seconds": "metrics.seconds",
                 "memory_base": 8e8, "memory_per_byte": 3, "output_per_byte": 0.01}
  }]
})json",
                ESPALIER_COMPONENT("metric/ensemble", Ensemble));
