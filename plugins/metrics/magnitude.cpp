// Magnitude of a unit's weights, the oldest measure of what a structure is worth (prune/magnitude.h).
#include <algorithm>

#include "prune/magnitude.h"
#include "run/metric.h"
#include "sdk/plugin.h"

using namespace espalier;

namespace {

class Magnitude final : public MetricComponent {
 public:
  Scores score(Context& context, const Params& params, const Graph& graph, const std::vector<CoupledGroup>& groups,
               const Artifact*) override {
    MagnitudeOptions options;
    options.p = static_cast<int>(params.integer("p"));
    options.producers_only = params.text("members") == "producers";
    options.threads = context.threads();
    Scores scores = magnitude(graph, groups, options, [&](std::size_t done, std::size_t all) {
      context.check_cancelled();
      context.progress({done, all, "magnitude", {}});
    });
    const auto normalise = params.text("normalise");
    for (auto& [group, own] : scores) normalise_group(own, normalise);
    return scores;
  }

 private:
  static void normalise_group(std::vector<double>& scores, const std::string& how) {
    double by = 0;
    for (double s : scores) by = how == "max" ? std::max(by, s) : by + s / static_cast<double>(scores.size());
    if (how == "none" || by == 0) return;
    for (double& s : scores) s /= by;
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "magnitude", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Importance by size of the weights",
  "components": [{
    "name": "metric/magnitude", "version": "0.1.0",
    "summary": "L1 or L2 norm of a unit's weights over all slices that live and die together; needs no data",
    "inputs": [
      {"name": "model", "type": "model", "help": "the model whose units are scored"}
    ],
    "outputs": [
      {"name": "scores", "type": "scores", "help": "a score per unit, by group"}
    ],
    "parameters": [
      {"name": "p", "type": "integer", "default": 2, "min": 1, "max": 2, "help": "which norm: 1 = sum of absolute values, 2 = Euclidean"},
      {"name": "members", "type": "string", "default": "all", "choices": ["all", "producers"], "help": "slices that count: all of a unit's, or only those that make its channel"},
      {"name": "normalise", "type": "string", "default": "none", "choices": ["none", "mean", "max"], "help": "divide a group's scores by their mean or maximum, so that groups of different scale compare"}
    ],
    "depends": {"seed": false, "threads": false, "runtimes": []},
    "byte_exact": true,
    "estimate": {"memory": "2e8 + 1.2 * model.bytes",
                 "seconds": "1 + 4 * model.bytes / machine.bandwidth",
                 "memory_base": 5e8, "memory_per_byte": 1.2, "output_per_byte": 0.01}
  }]
})json",
                ESPALIER_COMPONENT("metric/magnitude", Magnitude));
