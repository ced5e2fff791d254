#include <algorithm>
#include <cmath>

#include "run/metric.h"
#include "sdk/plugin.h"

namespace {

/// A unit is worth as much as its largest weight.
class Largest final : public espalier::MetricComponent {
 public:
  espalier::Scores score(espalier::Context& context, const espalier::Params& params, const espalier::Graph& graph,
                         const std::vector<espalier::CoupledGroup>& groups, const espalier::Artifact*) override {
    espalier::Scores scores;
    for (const auto& group : groups) {
      context.check_cancelled();
      auto& own = scores[group.id];
      own.assign(group.units.size(), 0.0);
      for (std::size_t u = 0; u < group.units.size(); ++u) {
        for (const auto& slice : group.units[u]) {
          const auto& member = group.members[slice.member];
          if (params.flag("producers") && !member.producer) continue;
          own[u] = std::max(own[u], largest_in(*graph.initializer(member.tensor), member.axis, slice.indices));
        }
      }
    }
    return scores;
  }

 private:
  /// The largest |w| among the given indices of one axis.
  static double largest_in(const espalier::Tensor& tensor, std::size_t axis, const std::vector<std::int64_t>& indices) {
    if (!espalier::is_floating(tensor.dtype)) return 0;
    std::int64_t inner = 1;
    for (std::size_t d = axis + 1; d < tensor.shape.size(); ++d) inner *= tensor.shape[d];
    const auto values = tensor.numbers();
    double largest = 0;
    for (std::int64_t i = 0; i < tensor.count(); ++i) {
      const auto index = i / inner % tensor.shape[axis];
      if (std::binary_search(indices.begin(), indices.end(), index)) largest = std::max(largest, std::abs(values[std::size_t(i)]));
    }
    return largest;
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "largest", "version": "1.0.0", "author": "You", "licence": "Apache-2.0",
  "description": "Importance by the largest weight",
  "components": [{
    "name": "metric/largest",
    "summary": "A unit is worth as much as its largest weight",
    "inputs": [{"name": "model", "type": "model", "help": "the model whose units are scored"}],
    "outputs": [{"name": "scores", "type": "scores", "help": "a score per unit, by group"}],
    "parameters": [
      {"name": "producers", "type": "boolean", "default": false, "help": "look only at what makes the unit's channel"}
    ],
    "depends": {"threads": false},
    "byte_exact": true
  }]
})json",
                ESPALIER_COMPONENT("metric/largest", Largest));
