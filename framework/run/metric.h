#pragma once
#include <map>
#include <string>
#include <vector>

#include "graph/groups.h"
#include "sdk/component.h"
#include "sdk/context.h"

namespace espalier {

/// Importance of units: group id → one score for every unit; higher is more important. A group that a metric has no meaning for is
/// left out, never given a number: pruners and ensembles refuse a group without scores by its name.
using Scores = std::map<std::string, std::vector<double>>;

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
