// Structured pruning by threshold: what hardly says anything goes, however much or little that is. Neurons that are mostly zero
// over data: Hu et al., "Network Trimming: A Data-Driven Neuron Pruning Approach towards Efficient Deep Architectures", 2016.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <string_view>

#include "run/compensation_parameters.h"
#include "run/pruning.h"
#include "sdk/plugin.h"

using namespace espalier;

namespace {

/// A parameter's choice, by its name.
template <class Choice>
Choice choice(const Params& params, const char* name, const std::map<std::string, Choice>& known) {
  const auto found = known.find(params.text(name));
  if (found != known.end()) return found->second;
  std::vector<std::string_view> names;
  for (const auto& [one, value] : known) names.push_back(one);
  throw_invalid(fmt::format("{} \"{}\" is none of {}", name, params.text(name), fmt::join(names, ", ")),
                fmt::format("parameter {}", name));
}

Json thresholds_table(const std::vector<BelowThreshold>& report) {
  Json rows = Json::array();
  for (const auto& row : report) rows.push_back({row.group, row.units, row.below, row.removed, row.bound, row.smallest});
  return {{"columns", {"group", "units", "below threshold", "removed", "threshold", "smallest score"}}, {"rows", std::move(rows)}};
}

class NeuronPruner final : public Component {
 public:
  void run(Context& context) override {
    using Relative = ThresholdOptions::Relative;
    using Across = ThresholdOptions::Across;
    const Params& params = context.params();
    SelectionOptions options;
    options.scope = {params.texts("scope"), params.texts("exclude")};
    options.minimum = params.number("minimum");
    options.multiple = params.integer("multiple");
    options.allow_inexact = params.flag("allow_inexact");
    ThresholdOptions threshold;
    threshold.threshold = params.number("threshold");
    threshold.relative_to =
        choice<Relative>(params, "relative_to", {{"none", Relative::none}, {"mean", Relative::mean}, {"max", Relative::max}});
    threshold.across = choice<Across>(params, "across", {{"group", Across::group}, {"all", Across::all}});
    threshold.maximum = params.number("maximum");
    check_threshold(options, threshold);  // before minutes of scoring
    run_pruner(context, CoupledGroup::Kind::channels, options,
               [&](const Graph& graph, const std::vector<CoupledGroup>& groups, const Scores& scores) {
                 std::vector<BelowThreshold> report;
                 auto selection = select_below(graph, groups, scores, options, threshold, report);
                 double below = 0;
                 for (const auto& row : report) below += static_cast<double>(row.below);
                 context.figure("below_threshold", below);
                 context.detail("thresholds", thresholds_table(report));
                 return selection;
               });
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "neurons", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Structured pruning by threshold",
  "components": [{
    "name": "pruner/neurons", "version": "0.1.0",
    "summary": "Removes every channel whose score is below a threshold, however many that are; the result is a smaller dense model",
    "inputs": [
      {"name": "model", "type": "model", "help": "the model to cut"},
      {"name": "data", "type": "dataset", "required": false, "help": "for metrics that look at data, as the default one does"},
      {"name": "scores", "type": "scores", "required": false, "help": "scores of a metric's stage, instead of the parameter metric"}
    ],
    "outputs": [
      {"name": "model", "type": "model", "help": "the smaller model"},
      {"name": "masks", "type": "masks", "help": "per group, one byte a unit: 1 = kept"}
    ],
    "parameters": [
      {"name": "threshold", "type": "number", "required": true, "help": "a channel goes when its score is below it: below threshold × what relative_to says; 0.05 of the mean is careful; 0 or more unless relative_to is none"},
      {"name": "relative_to", "type": "string", "default": "mean", "choices": ["none", "mean", "max"], "help": "mean, max: the threshold is a share of the mean or of the largest score; none: it is compared with the scores themselves"},
      {"name": "across", "type": "string", "default": "group", "choices": ["group", "all"], "help": "whose mean or largest score: of the channel's own group, or of all groups in scope"},
      {"name": "metric", "type": "component", "kind": "metric", "default": {"use": "metric/activation", "measure": "mean_abs"}, "help": "what scores the channels; the default, the mean size of what is read from them, needs data; metric/magnitude does not"},
      {"name": "scope", "type": "list<string>", "default": ["*"], "help": "patterns of the layers whose channels may go, such as *.mlp"},
      {"name": "exclude", "type": "list<string>", "default": [], "help": "patterns of layers that stay whole"},
      {"name": "minimum", "type": "number", "default": 0.1, "min": 0, "max": 1, "help": "share of its channels that every group keeps, one at least, whatever their scores"},
      {"name": "maximum", "type": "number", "default": 1, "min": 0, "max": 1, "help": "largest share of the parameters in scope that may go; when the threshold would take more, the least important per parameter go"},
      {"name": "multiple", "type": "integer", "default": 1, "min": 1, "max": 4096, "unit": "channels", "help": "round the channels left in a layer up to a multiple that the target likes"},
      {"name": "allow_inexact", "type": "boolean", "default": false, "help": "also cut where what is kept computes something else without the cut channels (the axis of a layer norm)"},
)json" ESPALIER_COMPENSATION_PARAMETERS R"json(
    ],
    "depends": {"seed": false, "threads": true, "runtimes": ["torch"]},
    "estimate": {"memory": "max(metric.memory, 3e8 + 1.2 * model.bytes)",
                 "seconds": "metric.seconds + 2 + if(compensate, min(compensation_samples, data.count) * data.sequence * 4 * model.macs / (0.75 * machine.flops), 0)",
                 "memory_base": 8e8, "memory_per_byte": 2.2, "output_per_byte": 1}
  }]
})json",
                ESPALIER_COMPONENT("pruner/neurons", NeuronPruner));
