// First-order Taylor importance (Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019): how much the
// loss would change, to first order, if a unit's weights became zero: |Σ w·∂L/∂w|. Summed over a coupled group's slices as one
// vector before the absolute value (LLM-Pruner; Ma et al., NeurIPS 2023).
#include <ATen/core/Tensor.h>
#include <ATen/ops/mul.h>

#include <cmath>

#include "run/unit_gradients.h"
#include "sdk/plugin.h"

using namespace espalier;

namespace {

class Taylor final : public MetricComponent {
 public:
  Scores score(Context& context, const Params& params, const Graph& graph, const std::vector<CoupledGroup>& groups,
               const Artifact* data) override {
    const MetricExamples examples(context, params, data, "metric/taylor");
    UnitGradients gradients(graph, groups, params);
    Scores scores;
    for (const auto& group : groups) scores[group.id].assign(group.units.size(), 0.0);
    const auto add_absolute = [&] {
      for (const auto& [group, sums] : gradients.take())
        for (std::size_t u = 0; u < sums.size(); ++u) scores.at(group)[u] += std::abs(sums[u]);
    };
    const bool per_pass = params.text("absolute") == "pass";
    gradients.walk(context, examples, "Taylor importance", product, share,
                   per_pass ? std::function<void()>(add_absolute) : nullptr);
    if (!per_pass) add_absolute();
    return scores;
  }

 private:
  static at::Tensor product(const at::Tensor& weight, const at::Tensor& gradient) { return at::mul(weight, gradient); }
  static double share(double examples, double all) { return examples / all; }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "taylor", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Importance by gradients",
  "components": [{
    "name": "metric/taylor", "version": "0.1.0",
    "summary": "How far the loss would move, to first order, without a unit: |Σ w·∂L/∂w| over its slices and over data",
    "inputs": [
      {"name": "model", "type": "model", "help": "the model whose units are scored"},
      {"name": "data", "type": "dataset", "help": "windows of tokens that stand for what the model must stay good at"}
    ],
    "outputs": [
      {"name": "scores", "type": "scores", "help": "a score per unit, by group"}
    ],
    "parameters": [
      {"name": "samples", "type": "integer", "default": 16, "min": 1, "unit": "windows", "help": "windows used, spread evenly over the data"},
      {"name": "batch", "type": "integer", "default": 1, "min": 1, "unit": "windows", "help": "windows in one forward and backward pass"},
)json" ESPALIER_GRADIENT_PARAMETERS R"json(,
      {"name": "absolute", "type": "string", "default": "pass", "choices": ["pass", "data"], "help": "take the absolute value of every pass and add them up, or of the sum over all data"}
    ],
    "depends": {"seed": false, "threads": true, "runtimes": ["torch"]},
    "estimate": {"memory": "2e8 + 1.2 * model.bytes + batch * data.sequence * model.activation_bytes",
                 "seconds": "1 + min(samples, data.count) * data.sequence * 6 * model.macs / (0.75 * machine.flops)",
                 "memory_base": 8e8, "memory_per_byte": 3, "output_per_byte": 0.01}
  }]
})json",
                ESPALIER_COMPONENT("metric/taylor", Taylor));
