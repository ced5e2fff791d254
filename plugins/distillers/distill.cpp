// Distillation (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015): the student learns the teacher's whole
// distribution over the next token (soft targets), beside the text itself (hard targets).
#include <ATen/ops/mul.h>

#include "sdk/plugin.h"
#include "training_stage.h"

using namespace espalier;

namespace {

struct Losses {
  double soft = 0, hard = 0, temperature = 1;
};

Losses losses_from(const Params& params) {
  Losses losses;
  const std::map<std::string, double*> known{{"soft", &losses.soft}, {"hard", &losses.hard}, {"temperature", &losses.temperature}};
  for (const auto& [name, value] : params.numbers("losses")) {
    auto at = known.find(name);
    if (at == known.end()) {
      // A slip is near one of the names; anything else is another loss that this component does not have.
      std::string near;
      for (const auto& [candidate, target] : known) {
        if (candidate.substr(0, 2) == name.substr(0, 2)) near = fmt::format("did you mean \"{}\"? ", candidate);
      }
      throw_invalid(fmt::format("losses: there is no \"{}\"", name), "parameter losses",
                    near + "there are: soft, hard, temperature");
    }
    if (value < 0 || (name == "temperature" && value == 0)) {
      throw_invalid(fmt::format("losses: {} = {} must be {}", name, value, name == "temperature" ? "above 0" : "0 or more"),
                    "parameter losses");
    }
    *at->second = value;
  }
  if (losses.soft == 0 && losses.hard == 0) {
    throw_invalid("losses: neither soft nor hard has a weight, so there is nothing to learn", "parameter losses",
                  "such as: losses = { soft = 1.0, temperature = 2.0 }");
  }
  return losses;
}

/// The tokenizers of student and teacher, where both are known, must be one: soft targets compare token by token.
void check_same_tokenizer(const Artifact& student, const Artifact& teacher) {
  const auto of = [](const Artifact& a) { return a.meta.value("tokenizer", std::string()); };
  if (of(student).empty() || of(teacher).empty() || of(student) == of(teacher)) return;
  throw_invalid(fmt::format("student and teacher have different tokenizers ({:.12} and {:.12})", of(student), of(teacher)),
                "ports student, teacher", "take a teacher of the same family");
}

class Distill final : public Component {
 public:
  void run(Context& context) override {
    const Losses losses = losses_from(context.params());
    check_same_tokenizer(context.input("student"), context.input("teacher"));
    check_tokenizers(context.input("student"), context.input("data"));
    check_tokenizers(context.input("teacher"), context.input("data"));
    const Graph student = load_model(context, context.input("student"));
    const Graph teacher = load_model(context, context.input("teacher"));
    check_language_model(student, "student");
    check_language_model(teacher, "teacher");
    std::optional<Session> guide;
    if (losses.soft > 0) guide.emplace(teacher);
    train_stage(context, "student", student, [&](Session& session, const TensorMap& inputs) {
      const at::Tensor targets = guide ? teacher_logits(*guide, teacher, inputs) : at::Tensor();
      const at::Tensor logits = session.run(inputs, {"logits"}).at("logits");
      at::Tensor loss;
      if (losses.hard > 0) loss = at::mul(causal_cross_entropy(logits, inputs.at("input_ids")), losses.hard);
      if (targets.defined()) {
        check_vocabulary(logits, targets);
        auto soft = at::mul(soft_target_loss(logits, targets, losses.temperature), losses.soft);
        loss = loss.defined() ? loss.add(soft) : soft;
      }
      return loss;
    });
  }

 private:
  static at::Tensor teacher_logits(Session& teacher, const Graph& graph, const TensorMap& inputs) {
    c10::NoGradGuard no_gradients;
    return teacher.run(inputs_for(graph, inputs), {"logits"}).at("logits");
  }
  static void check_vocabulary(const at::Tensor& student, const at::Tensor& teacher) {
    if (student.sizes() == teacher.sizes()) return;
    throw_invalid(fmt::format("the teacher has {} tokens in its vocabulary, the student {}", teacher.size(-1), student.size(-1)),
                  "ports student, teacher", "take a teacher with the same vocabulary");
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "distill", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Distillation of language models",
  "components": [{
    "name": "distiller/distill", "version": "0.1.0",
    "summary": "Trains a student to answer as its teacher does: soft targets with a temperature, and the text itself",
    "inputs": [
      {"name": "student", "type": "model", "help": "the model to train"},
      {"name": "teacher", "type": "model", "help": "the model to learn from; stays as it is"},
      {"name": "data", "type": "dataset", "help": "windows of tokens, made with the tokenizer of both"},
      {"name": "heldout", "type": "dataset", "required": false, "help": "windows that are not trained on; the student's loss on them is measured before and after"}
    ],
    "outputs": [
      {"name": "model", "type": "model", "help": "the trained student"}
    ],
    "parameters": [
      {"name": "losses", "type": "map<number>", "default": {"soft": 1.0, "hard": 0.5, "temperature": 2.0}, "help": "weights of the soft targets (the teacher's distribution) and the hard ones (the text), 0 where left out; and the temperature, 1 where left out"},
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
    "estimate": {"memory_base": 1e9, "memory_per_byte": 3, "output_per_byte": 0.5}
  }]
})json",
                ESPALIER_COMPONENT("distiller/distill", Distill));
