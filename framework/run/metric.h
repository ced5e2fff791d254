#pragma once
#include <string>
#include <vector>

#include "graph/groups.h"
#include "prune/scores.h"
#include "sdk/component.h"
#include "sdk/context.h"

namespace espalier {

/// C++ interface of metrics. `data` is nullptr when the recipe gives none; a metric that needs it throws Error(invalid_input).
class Metric {
 public:
  static constexpr std::string_view interface_id = "espalier.metric/1";
  virtual ~Metric();
  virtual Scores score(Context& context, const Params& params, const Graph& graph, const std::vector<CoupledGroup>& groups,
                       const Artifact* data) = 0;
};

/// A metric as a component: as a stage it reads `model` (and `data`) and writes `scores` (safetensors keyed by group id). Figure:
/// groups. Detail: scores, the range of each group's.
class MetricComponent : public Component, public Metric {
 public:
  void run(Context& context) override;
  void* interface(std::string_view id) override;
};

Scores load_scores(const Context& context, const Artifact& artifact);
Artifact save_scores(Context& context, const Scores& scores);

}  // namespace espalier
