// Finetuning on what the data itself says (next tokens, classes, values): distillation without a teacher.
#include "run/adapter_training.h"
#include "run/training_parameters.h"
#include "sdk/plugin.h"

using namespace espalier;

namespace {

class Finetune final : public TrainerComponent {
 public:
  Trained train(Context& context, const Params& params, const TrainingTask& task) override {
    const auto objective = objective_for(task.model, task.data, task.port);
    const auto loss = [&](const TensorMap& values, const TensorMap& batch) { return objective->hard(values, batch); };
    return train_with_adapter(context, params, task, *objective, {objective->values(), loss});
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "finetune", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Finetuning",
  "components": [{
    "name": "distiller/finetune", "version": "0.1.0",
    "summary": "Trains a model on data: cross-entropy of next tokens or classes, squared error of values; AdamW, warm-up and cosine",
    "inputs": [
      {"name": "model", "type": "model", "help": "the model to train"},
      {"name": "data", "type": "dataset", "help": "windows of tokens made with the model's tokenizer, or arrays with labels"},
      {"name": "heldout", "type": "dataset", "required": false, "help": "examples that are not trained on; their loss is measured before and after"}
    ],
    "outputs": [
      {"name": "model", "type": "model", "help": "the trained model"}
    ],
    "parameters": [
)json" ESPALIER_TRAINING_PARAMETERS "," ESPALIER_ADAPTER_PARAMETERS R"json(
    ],
    "depends": {"seed": true, "threads": true, "runtimes": ["torch"]},
    "estimate": {"memory": "1.5e8 + if(adapter == \"none\", 4, 1.2) * model.bytes + batch * data.sequence * if(checkpoint, 0.35, 0.8) * model.activation_bytes",
                 "seconds": "3 + steps * (accumulation * batch * data.sequence * 6 * model.macs / (0.75 * machine.flops) + 8 * model.bytes / machine.bandwidth) + 2 * heldout.count * heldout.sequence * 2 * model.macs / (0.75 * machine.flops)",
                 "memory_base": 1.1e9, "memory_per_byte": 5, "output_per_byte": 1}
  }]
})json",
                ESPALIER_COMPONENT("distiller/finetune", Finetune));
