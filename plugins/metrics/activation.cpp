// How much flows through a unit over data: norms, mean magnitude or variance of the values that the weights downstream read from
// it. Small activations as a sign of filters that can go: Hu et al., "Network Trimming", 2016; Molchanov et al., ICLR 2017. The
// variance is what a unit says beyond a constant: its mean could move into the next bias (An et al., "FLAP", AAAI 2024). Every
// value is reduced as soon as it is computed; none is kept.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <cmath>
#include <map>

#include "run/metric.h"
#include "run/metric_examples.h"
#include "run/padding.h"
#include "run/unit_readers.h"
#include "sdk/plugin.h"

using namespace espalier;

namespace {

/// Per index of one axis of a value, over all that has flowed: f64 [length] each, only what the measure asks for.
struct Moments {
  double count = 0;         ///< elements of each index
  at::Tensor sum;           ///< Σ|x|, or Σx²
  at::Tensor mean, spread;  ///< of x, and Σ(x - mean)²

  /// `x`: [length, elements] f64.
  void add_sum(const at::Tensor& x, bool squares) {
    const at::Tensor own = (squares ? x.square() : x.abs()).sum(1);
    sum = sum.defined() ? sum + own : own;
    count += static_cast<double>(x.size(1));
  }

  /// Merges means and sums of squared deviations pairwise (Chan, Golub and LeVeque, 1979): no difference of large squares.
  void add_variance(const at::Tensor& x) {
    const auto n = static_cast<double>(x.size(1));
    const at::Tensor own_mean = x.mean(1), own = (x - own_mean.unsqueeze(1)).square_().sum(1);
    if (!mean.defined()) {
      mean = own_mean;
      spread = own;
    } else {
      const at::Tensor delta = own_mean - mean;
      spread = spread + own + delta.square() * (count * n / (count + n));
      mean = mean + delta * (n / (count + n));
    }
    count += n;
  }
};

class Activation final : public MetricComponent {
 public:
  Scores score(Context& context, const Params& params, const Graph& graph, const std::vector<CoupledGroup>& groups,
               const Artifact* data) override {
    const MetricExamples examples(context, params, data, "metric/activation");
    const UnitReaders readers(graph, groups);
    const auto measure = params.text("measure");
    const auto moments = observe(context, graph, examples, measure, readers.axes());
    tell(context, readers, moments);
    return readers.scores(context, by_unit(readers, moments, measure));
  }

 private:
  /// Of each axis.
  static std::vector<Moments> observe(Context& context, const Graph& graph, const MetricExamples& examples,
                                      const std::string& measure, const std::vector<UnitAxis>& axes) {
    std::vector<Moments> moments(axes.size());
    std::map<std::string, std::vector<std::size_t>> by_value;
    for (std::size_t i = 0; i < axes.size(); ++i) by_value[axes[i].value].push_back(i);
    std::vector<std::string> values;
    at::Tensor real;  // of the batch that runs
    Session session(graph);
    for (const auto& [value, numbers] : by_value) {
      values.push_back(value);
      session.hook(value, [&, numbers](const std::string& name, const at::Tensor& x) {
        for (const std::size_t i : numbers) {
          const at::Tensor rows = rows_of(x, axes[i].axis, real, name);
          if (rows.size(1) == 0) continue;
          measure == "variance" ? moments[i].add_variance(rows) : moments[i].add_sum(rows, measure == "l2");
        }
        return at::Tensor();
      });
    }
    examples.observe(context, session, graph, values, "activations", [&](const TensorMap& batch) { real = real_positions(batch); });
    return moments;
  }

  /// A value as [length of the axis, elements] f64 without padded positions. Values of whole examples have none: [batch, channels].
  static at::Tensor rows_of(const at::Tensor& x, std::size_t axis, const at::Tensor& real, const std::string& name) {
    const bool whole = x.dim() == 2 && real.defined() && x.size(0) == real.size(0);
    const at::Tensor kept = whole ? x : without_padding(x, real, name);
    const auto at = static_cast<std::int64_t>(axis) - (x.dim() - kept.dim());
    if (at < 1 && real.defined())
      throw_unsupported("the data has padding, and channels lie where positions are expected", name,
                        "give data without padding, such as windows of source/text");
    return kept.movedim(at, 0).reshape({kept.size(at), -1}).to(at::kDouble);
  }

  static std::vector<double> by_unit(const UnitReaders& readers, const std::vector<Moments>& moments, const std::string& measure) {
    std::vector<double> sum(readers.units(), 0.0), count(readers.units(), 0.0);
    for (std::size_t a = 0; a < moments.size(); ++a) {
      const at::Tensor& of = measure == "variance" ? moments[a].spread : moments[a].sum;
      if (!of.defined()) continue;
      const double* values = of.const_data_ptr<double>();
      const auto& units = readers.axes()[a].unit;
      for (std::size_t i = 0; i < units.size(); ++i) {
        if (units[i] == UnitAxis::nobody) continue;
        sum[static_cast<std::size_t>(units[i])] += values[i];
        count[static_cast<std::size_t>(units[i])] += moments[a].count;
      }
    }
    const bool mean = measure == "variance" || measure == "mean_abs";
    for (std::size_t u = 0; u < sum.size(); ++u)
      if (measure == "l2")
        sum[u] = std::sqrt(sum[u]);
      else if (mean && count[u] > 0)
        sum[u] /= count[u];
    return sum;
  }

  static void tell(Context& context, const UnitReaders& readers, const std::vector<Moments>& moments) {
    Json rows = Json::array();
    for (std::size_t a = 0; a < moments.size(); ++a)
      for (const auto& group : readers.groups_on(readers.axes()[a]))
        rows.push_back({group, readers.axes()[a].value, readers.axes()[a].axis, moments[a].count});
    context.detail("observed", {{"columns", {"group", "value", "axis", "elements a channel"}}, {"rows", std::move(rows)}});
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "activation", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Importance by what flows through a unit",
  "components": [{
    "name": "metric/activation", "version": "0.1.0",
    "summary": "Size or variance of what the weights downstream read from a unit, over data; forward passes only",
    "inputs": [
      {"name": "model", "type": "model", "help": "the model whose units are scored; it may be quantized"},
      {"name": "data", "type": "dataset", "help": "examples that stand for what the model must stay good at"}
    ],
    "outputs": [
      {"name": "scores", "type": "scores", "help": "a score per unit, by group; none for groups whose channels no weight reads"}
    ],
    "parameters": [
      {"name": "measure", "type": "string", "default": "l2", "choices": ["l1", "l2", "mean_abs", "variance"], "help": "Σ|x| or √Σx² over all positions, examples and channels of the unit; their mean |x|; or the mean variance of its channels, which a constant channel has none of"},
      {"name": "samples", "type": "integer", "default": 16, "min": 1, "unit": "windows", "help": "windows used, spread evenly over the data"},
      {"name": "batch", "type": "integer", "default": 1, "min": 1, "unit": "windows", "help": "windows in one forward pass; the scores do not depend on it"}
    ],
    "depends": {"seed": false, "threads": true, "runtimes": ["torch"]},
    "estimate": {"memory": "2.5e8 + 1.2 * model.bytes + 0.1 * batch * data.sequence * model.activation_bytes",
                 "seconds": "1 + min(samples, data.count) * data.sequence * 2 * model.macs / (0.6 * machine.flops)",
                 "memory_base": 8e8, "memory_per_byte": 2.2, "output_per_byte": 0.01}
  }]
})json",
                ESPALIER_COMPONENT("metric/activation", Activation));
