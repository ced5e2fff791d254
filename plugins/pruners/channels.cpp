// Structured pruning of channels: of feed-forward layers, of convolutions, of whatever the operators' axis maps couple.
#include "run/compensation_parameters.h"
#include "run/pruning.h"
#include "sdk/plugin.h"

namespace {

class ChannelPruner final : public espalier::Component {
 public:
  void run(espalier::Context& context) override { espalier::run_pruner(context, espalier::CoupledGroup::Kind::channels); }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "channels", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Structured pruning of channels",
  "components": [{
    "name": "pruner/channels", "version": "0.1.0",
    "summary": "Removes whole channels with everything coupled to them, the least important first; the result is a smaller dense model",
    "inputs": [
      {"name": "model", "type": "model", "help": "the model to cut"},
      {"name": "data", "type": "dataset", "required": false, "help": "for metrics that look at data"},
      {"name": "scores", "type": "scores", "required": false, "help": "scores of a metric's stage, instead of the parameter metric"}
    ],
    "outputs": [
      {"name": "model", "type": "model", "help": "the smaller model"},
      {"name": "masks", "type": "masks", "help": "per group, one byte a unit: 1 = kept"}
    ],
    "parameters": [
      {"name": "sparsity", "type": "number", "required": true, "min": 0, "max": 1, "help": "share of the parameters in scope to remove; never exceeded"},
      {"name": "metric", "type": "component", "kind": "metric", "default": {"use": "metric/magnitude"}, "help": "what scores the units"},
      {"name": "scope", "type": "list<string>", "default": ["*"], "help": "patterns of the layers whose channels may go, such as *.mlp"},
      {"name": "exclude", "type": "list<string>", "default": [], "help": "patterns of layers that stay whole"},
      {"name": "per_scope", "type": "map<number>", "default": {}, "help": "sparsities of their own: pattern = share; the longest matching pattern wins"},
      {"name": "ranking", "type": "string", "default": "layer", "choices": ["layer", "global"], "help": "layer: every group loses the same share; global: the least important per parameter go, wherever they are"},
      {"name": "normalise", "type": "string", "default": "none", "choices": ["none", "mean", "max", "sum"], "help": "divide each group's scores before global ranking; mean is a good choice for magnitudes"},
      {"name": "minimum", "type": "number", "default": 0.1, "min": 0, "max": 1, "help": "share of its channels that every group keeps, one at least"},
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
                ESPALIER_COMPONENT("pruner/channels", ChannelPruner));
