// Fisher information of masks: how far the loss would rise, to second order, if what the weights downstream read from a unit
// became zero: ½·Σ (Σ a·∂L/∂a)², over the unit's channels a (Kwon et al., "A Fast Post-Training Pruning Framework for
// Transformers", NeurIPS 2022, with a mask for each example; Theis et al., 2018). A mask for each position tells apart units whose
// effects at different tokens cancel out in an example's sum. Forward and backward passes reach values only, no weight gets a
// gradient.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <map>

#include "run/metric.h"
#include "run/metric_examples.h"
#include "run/objective.h"
#include "run/trainer.h"
#include "run/unit_readers.h"
#include "sdk/plugin.h"

using namespace espalier;

namespace {

/// Where one value is read along one axis: Σ over masks of (Σ a·∂L/∂a)², by unit.
class Masks {
 public:
  Masks(const UnitAxis& axis, bool by_position) : axis_(axis), by_position_(by_position) {
    std::map<std::int32_t, std::int64_t> place;
    std::vector<std::int64_t> indices, places;
    for (std::size_t i = 0; i < axis.unit.size(); ++i) {
      if (axis.unit[i] == UnitAxis::nobody) continue;
      const auto [at, fresh] = place.try_emplace(axis.unit[i], static_cast<std::int64_t>(units_.size()));
      if (fresh) units_.push_back(axis.unit[i]);
      indices.push_back(static_cast<std::int64_t>(i));
      places.push_back(at->second);
    }
    indices_ = at::tensor(at::ArrayRef<std::int64_t>(indices), at::kLong);
    places_ = at::tensor(at::ArrayRef<std::int64_t>(places), at::kLong);
  }

  void add(const at::Tensor& value, const at::Tensor& gradient) {
    const auto axis = static_cast<std::int64_t>(axis_.axis);
    const auto rows = [&](const at::Tensor& x) { return x.movedim(axis, -1).reshape({-1, x.size(axis)}); };
    const auto wide = value.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    at::Tensor effects = rows(value).to(wide) * rows(gradient);
    if (!by_position_) effects = effects.sum(0, true);
    if (indices_.numel() != effects.size(1)) effects = effects.index_select(1, indices_);
    const auto units = static_cast<std::int64_t>(units_.size());
    if (units != effects.size(1)) effects = at::zeros({effects.size(0), units}, effects.options()).index_add_(1, places_, effects);
    const at::Tensor squares = effects.square_().sum(0).to(at::kDouble);
    sums_ = sums_.defined() ? sums_ + squares : squares;
  }

  /// What has come since the last call, times `share`.
  void take(double share, std::vector<double>& by_unit) {
    if (!sums_.defined()) return;
    const double* sums = sums_.const_data_ptr<double>();
    for (std::size_t i = 0; i < units_.size(); ++i) by_unit[static_cast<std::size_t>(units_[i])] += share * sums[i];
    sums_.reset();
  }

  const std::string& value() const { return axis_.value; }

 private:
  const UnitAxis& axis_;
  bool by_position_;
  std::vector<std::int32_t> units_;  ///< in order of `places_`
  at::Tensor indices_, places_;      ///< along the axis, ascending; of the unit that each belongs to
  at::Tensor sums_;                  ///< f64, by place
};

class Fisher final : public MetricComponent {
 public:
  Scores score(Context& context, const Params& params, const Graph& graph, const std::vector<CoupledGroup>& groups,
               const Artifact* data) override {
    const MetricExamples examples(context, params, data, "metric/fisher");
    const UnitReaders readers(graph, groups);
    std::vector<Masks> masks;
    for (const UnitAxis& axis : readers.axes()) masks.emplace_back(axis, params.text("masks") == "position");
    Session session(graph, session_options(params));
    watch(session, masks);
    const auto objective = objective_for(graph, examples.dataset());
    const auto all = static_cast<double>(examples.count());
    std::vector<double> by_unit(readers.units(), 0.0);
    examples.walk(context, "Fisher information", [&](const std::vector<std::int64_t>& numbers, double worth) {
      const auto batch = examples.dataset().batch(numbers);
      auto out = session.run(inputs_for(graph, batch), objective->values());
      auto loss = objective->hard(out, batch);
      out.clear();
      loss.backward();
      // Gradients are of the pass's mean: of its sum they are `worth` times as large.
      for (Masks& each : masks) each.take(0.5 * worth * worth / all, by_unit);
      return loss.item<double>();
    });
    return readers.scores(context, by_unit);
  }

 private:
  /// Gradients of values begin at the first ones that are read: these become leaves.
  static void watch(Session& session, std::vector<Masks>& masks) {
    std::map<std::string, std::vector<Masks*>> by_value;
    for (Masks& each : masks) by_value[each.value()].push_back(&each);
    for (auto& [value, watching] : by_value)
      session.hook(value, [watching = watching](const std::string&, const at::Tensor& x) {
        if (!x.is_floating_point()) return at::Tensor();
        at::Tensor kept = x.requires_grad() ? x : x.detach().set_requires_grad(true);
        kept.register_hook([watching, held = x.detach()](const at::Tensor& gradient) {
          const c10::AutoGradMode off(false);
          for (Masks* each : watching) each->add(held, gradient);
        });
        return kept;
      });
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "fisher", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Importance by the Fisher information of masks",
  "components": [{
    "name": "metric/fisher", "version": "0.1.0",
    "summary": "How far the loss would rise, to second order, without what is read of a unit: ½·Σ (Σ a·∂L/∂a)², with a mask for each position or each pass",
    "inputs": [
      {"name": "model", "type": "model", "help": "the model whose units are scored; it may be quantized"},
      {"name": "data", "type": "dataset", "help": "examples that stand for what the model must stay good at"}
    ],
    "outputs": [
      {"name": "scores", "type": "scores", "help": "a score per unit, by group; none for groups whose channels no weight reads"}
    ],
    "parameters": [
      {"name": "masks", "type": "string", "default": "position", "choices": ["position", "pass"], "help": "what is squared by itself: the effect at each position (token, pixel), or a pass's sum, which is an example's with batch = 1"},
      {"name": "samples", "type": "integer", "default": 16, "min": 1, "unit": "windows", "help": "windows used, spread evenly over the data"},
      {"name": "batch", "type": "integer", "default": 1, "min": 1, "unit": "windows", "help": "windows in one forward and backward pass; scores by position do not depend on it"},
      {"name": "precision", "type": "string", "default": "f32", "choices": ["f32", "bf16"], "help": "type of matrix products, convolutions and attention in the passes; bf16 takes half the time where the processor has instructions for it and ranks nearly the same"}
    ],
    "depends": {"seed": false, "threads": true, "runtimes": ["torch"]},
    "estimate": {"memory": "2e8 + 0.6 * model.bytes + batch * data.sequence * model.activation_bytes",
                 "seconds": "1 + min(samples, data.count) * data.sequence * 4 * model.macs / (0.75 * machine.flops)",
                 "memory_base": 8e8, "memory_per_byte": 2.5, "output_per_byte": 0.01}
  }]
})json",
                ESPALIER_COMPONENT("metric/fisher", Fisher));
