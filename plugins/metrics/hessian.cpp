// Curvature importance: what the loss would rise by, to second order, if a unit's weights became zero, ½·Σ w²·E[g²] (Optimal Brain
// Damage; LeCun, Denker and Solla, 1990), with the diagonal of the empirical Fisher matrix, the mean square of one example's
// gradient g, for the Hessian's (Theis et al., "Faster gaze prediction with dense networks and Fisher pruning", 2018).
#include <ATen/core/Tensor.h>
#include <ATen/ops/mul.h>

#include "run/unit_gradients.h"
#include "sdk/plugin.h"

using namespace espalier;

namespace {

class Hessian final : public MetricComponent {
 public:
  Scores score(Context& context, const Params& params, const Graph& graph, const std::vector<CoupledGroup>& groups,
               const Artifact* data) override {
    const MetricExamples examples(context, params, data, "metric/hessian");
    UnitGradients gradients(graph, groups, params);
    gradients.walk(context, examples, "curvature", square, share, nullptr);
    return gradients.take();
  }

 private:
  static at::Tensor square(const at::Tensor& weight, const at::Tensor& gradient) { return at::mul(weight, gradient).square_(); }

  /// A pass gives the mean of its examples' gradients. The square of their sum expects Σ g² where they are independent and, as at a
  /// minimum, of mean zero: n² of the mean's square, exact for n = 1.
  static double share(double examples, double all) { return 0.5 * examples * examples / all; }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "hessian", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Importance by curvature",
  "components": [{
    "name": "metric/hessian", "version": "0.1.0",
    "summary": "How far the loss would rise, to second order, without a unit: half of Σ w²·E[g²] over its slices and over data",
    "inputs": [
      {"name": "model", "type": "model", "help": "the model whose units are scored"},
      {"name": "data", "type": "dataset", "help": "windows of tokens that stand for what the model must stay good at"}
    ],
    "outputs": [
      {"name": "scores", "type": "scores", "help": "a score per unit, by group"}
    ],
    "parameters": [
      {"name": "samples", "type": "integer", "default": 16, "min": 1, "unit": "windows", "help": "windows used, spread evenly over the data"},
      {"name": "batch", "type": "integer", "default": 1, "min": 1, "unit": "windows", "help": "windows whose gradient is squared as one, times their number: faster, and the same only where their gradients are independent"},
)json" ESPALIER_GRADIENT_PARAMETERS R"json(
    ],
    "depends": {"seed": false, "threads": true, "runtimes": ["torch"]},
    "estimate": {"memory": "2e8 + 1.2 * model.bytes + batch * data.sequence * model.activation_bytes",
                 "seconds": "1 + min(samples, data.count) * data.sequence * 6 * model.macs / (0.75 * machine.flops)",
                 "memory_base": 8e8, "memory_per_byte": 3, "output_per_byte": 0.01}
  }]
})json",
                ESPALIER_COMPONENT("metric/hessian", Hessian));
