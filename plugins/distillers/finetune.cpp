// Finetuning on next-token prediction: distillation without a teacher.
#include "sdk/plugin.h"
#include "training_stage.h"

using namespace espalier;

namespace {

class Finetune final : public Component {
 public:
  void run(Context& context) override {
    check_tokenizers(context.input("model"), context.input("data"));
    const Graph graph = load_model(context, context.input("model"));
    check_language_model(graph, "model");
    train_stage(context, "model", graph, [](Session& session, const TensorMap& inputs) {
      return causal_cross_entropy(session.run(inputs, {"logits"}).at("logits"), inputs.at("input_ids"));
    });
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "finetune", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Finetuning of language models",
  "components": [{
    "name": "distiller/finetune", "version": "0.1.0",
    "summary": "Trains a language model on text: next-token cross-entropy, AdamW, warm-up and cosine",
    "inputs": [
      {"name": "model", "type": "model", "help": "the model to train"},
      {"name": "data", "type": "dataset", "help": "windows of tokens, made with the model's tokenizer"},
      {"name": "heldout", "type": "dataset", "required": false, "help": "windows that are not trained on; their loss is measured before and after"}
    ],
    "outputs": [
      {"name": "model", "type": "model", "help": "the trained model"}
    ],
    "parameters": [
      {"name": "steps", "type": "integer", "default": 100, "min": 1, "max": 100000000, "unit": "steps", "help": "optimizer steps"},
      {"name": "batch", "type": "integer", "default": 1, "min": 1, "max": 65536, "unit": "windows", "help": "windows in one forward and backward pass; decides peak memory"},
      {"name": "accumulation", "type": "integer", "default": 1, "min": 1, "max": 65536, "unit": "passes", "help": "passes whose gradients make one step; batch · accumulation windows count together"},
      {"name": "learning_rate", "type": "number", "default": 0.0002, "min": 0, "max": 10, "help": "peak rate of AdamW, after warm-up"},
      {"name": "warmup", "type": "integer", "default": 10, "min": 0, "unit": "steps", "help": "steps over which the rate rises from 0; then it falls along a cosine"},
      {"name": "final_share", "type": "number", "default": 0.0, "min": 0, "max": 1, "help": "share of the peak rate at the last step"},
      {"name": "weight_decay", "type": "number", "default": 0.01, "min": 0, "max": 1, "help": "decoupled weight decay per step, times the rate"},
      {"name": "beta1", "type": "number", "default": 0.9, "min": 0, "max": 0.999999, "help": "decay of the gradient's running mean"},
      {"name": "beta2", "type": "number", "default": 0.999, "min": 0, "max": 0.9999999, "help": "decay of the squared gradient's running mean"},
      {"name": "epsilon", "type": "number", "default": 1e-8, "min": 0, "max": 1, "help": "added to the root of the second moment"},
      {"name": "clip", "type": "number", "default": 1.0, "min": 0, "help": "largest global norm of the gradient; 0 = off"},
      {"name": "train", "type": "list<string>", "default": ["*"], "help": "patterns of the weights that change, such as *.mlp; the others stay frozen"}
    ],
    "depends": {"seed": true, "threads": true, "runtimes": ["torch"]},
    "estimate": {"memory_base": 1.1e9, "memory_per_byte": 5, "output_per_byte": 1}
  }]
})json",
                ESPALIER_COMPONENT("distiller/finetune", Finetune));
