// Pruning in rounds with training between them: importance is measured anew on what has recovered.
#include "run/iterative.h"
#include "run/compensation_parameters.h"
#include "sdk/plugin.h"

namespace {

class IterativePruner final : public espalier::Component {
 public:
  void run(espalier::Context& context) override { espalier::run_iterative_pruner(context); }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "iterative", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Structured pruning in rounds",
  "components": [{
    "name": "pruner/iterative", "version": "0.1.0",
    "summary": "Cuts a little, lets the model recover, measures importance anew, and so on; stops before the quality falls too far",
    "inputs": [
      {"name": "model", "type": "model", "help": "the model to cut; also the teacher when recover is a distillation"},
      {"name": "data", "type": "dataset", "required": false, "help": "for the recovery, for metrics that look at data, for compensation"},
      {"name": "heldout", "type": "dataset", "required": false, "help": "examples that are not trained on: every round's loss is measured on them, and max_loss_ratio looks at it"}
    ],
    "outputs": [
      {"name": "model", "type": "model", "help": "the smaller model: of the last round, or of the last that the stop rule let pass"},
      {"name": "masks", "type": "masks", "help": "per group of the model that came in, one byte a unit: 1 = kept"}
    ],
    "parameters": [
      {"name": "rounds", "type": "integer", "default": 6, "min": 1, "max": 1000, "unit": "rounds", "help": "how often is cut"},
      {"name": "share", "type": "number", "min": 0, "max": 1, "help": "share of the parameters in scope that are left which every round removes, so 1 - (1 - share)^rounds in the end; 0.05 to 0.2 is usual; instead of sparsity"},
      {"name": "sparsity", "type": "number", "min": 0, "max": 1, "help": "share of the original's parameters in scope that is gone after the last round; never exceeded; instead of share"},
      {"name": "schedule", "type": "string", "choices": ["linear", "cubic", "geometric"], "help": "how sparsity is reached: the same number each round (linear, where left out), much at first and little at last (cubic), the same share of what is left (geometric)"},
      {"name": "kinds", "type": "list<string>", "default": ["channels"], "choices": ["channels", "heads"], "help": "what is cut in every round, each kind to the same share of its scope"},
      {"name": "per_kind", "type": "map<number>", "default": {}, "help": "a share or sparsity of its own for a kind, such as heads = 0.1"},
      {"name": "metric", "type": "component", "kind": "metric", "default": {"use": "metric/magnitude"}, "help": "what scores the units, anew in every round"},
      {"name": "recover", "type": "component", "kind": "distiller", "help": "training after each round's cut: distiller/finetune, or distiller/distill with the original as teacher; its steps are those of one round; left out: none"},
      {"name": "max_loss_ratio", "type": "number", "min": 0, "help": "stop when a round's held-out loss, after its recovery, is more than so many times the original's; the result is the round before"},
      {"name": "channels_scope", "type": "list<string>", "default": ["*"], "help": "patterns of the layers whose channels may go, such as *.mlp"},
      {"name": "channels_exclude", "type": "list<string>", "default": [], "help": "patterns of layers whose channels stay"},
      {"name": "channels_ranking", "type": "string", "default": "layer", "choices": ["layer", "global"], "help": "layer: every group loses the same share; global: the least important per parameter go, wherever they are"},
      {"name": "channels_normalise", "type": "string", "default": "none", "choices": ["none", "mean", "max", "sum"], "help": "divide each group's scores before global ranking; mean is a good choice for magnitudes"},
      {"name": "channels_minimum", "type": "number", "default": 0.1, "min": 0, "max": 1, "help": "share of its channels in the original that every group keeps, one at least"},
      {"name": "channels_multiple", "type": "integer", "default": 1, "min": 1, "max": 4096, "unit": "channels", "help": "round the channels left in a layer up to a multiple that the target likes"},
      {"name": "heads_scope", "type": "list<string>", "default": ["*"], "help": "patterns of the layers whose heads may go, such as *.layers.3.self_attn"},
      {"name": "heads_exclude", "type": "list<string>", "default": [], "help": "patterns of layers whose heads stay"},
      {"name": "heads_ranking", "type": "string", "default": "global", "choices": ["layer", "global"], "help": "layer: every layer loses the same share of its heads; global: the least important go, wherever they are"},
      {"name": "heads_normalise", "type": "string", "default": "none", "choices": ["none", "mean", "max", "sum"], "help": "divide each layer's scores before global ranking; mean is a good choice for magnitudes"},
      {"name": "heads_minimum", "type": "number", "default": 0.1, "min": 0, "max": 1, "help": "share of its heads in the original that every layer keeps, one at least"},
      {"name": "heads_multiple", "type": "integer", "default": 1, "min": 1, "max": 64, "unit": "heads", "help": "round the units left in a layer (key-value heads) up to a multiple"},
      {"name": "allow_inexact", "type": "boolean", "default": false, "help": "also cut where what is kept computes something else without what is cut (the axis of a layer norm)"},
)json" ESPALIER_COMPENSATION_PARAMETERS R"json(
    ],
    "depends": {"seed": true, "threads": true, "runtimes": ["torch"]},
    "estimate": {"memory": "max(metric.memory, 3e8 + 1.2 * model.bytes, if(recover.use == \"\", 0, 1.5e8 + if(recover.adapter == \"none\", 4, 1.2) * model.bytes + recover.batch * data.sequence * if(recover.checkpoint, 0.35, 0.8) * model.activation_bytes))",
                 "seconds": "3 + rounds * (metric.seconds + 2 + 3 * heldout.count * heldout.sequence * model.macs / (0.75 * machine.flops) + if(recover.use == \"\", 0, recover.steps * (recover.accumulation * recover.batch * data.sequence * if(recover.use == \"distiller/distill\", 8, 6) * model.macs / (0.75 * machine.flops) + 8 * model.bytes / machine.bandwidth)) + if(compensate, min(compensation_samples, data.count) * data.sequence * 4 * model.macs / (0.75 * machine.flops), 0))",
                 "memory_base": 1.1e9, "memory_per_byte": 5, "output_per_byte": 1}
  }]
})json",
                ESPALIER_COMPONENT("pruner/iterative", IterativePruner));
