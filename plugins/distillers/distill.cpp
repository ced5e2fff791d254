// Distillation (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015): the student learns the teacher's whole
// distribution over the next token (soft targets), beside the text itself (hard targets).
#include <ATen/ops/mul.h>
#include <c10/core/GradMode.h>

#include <optional>

#include "run/session.h"
#include "run/trainer.h"
#include "run/training_parameters.h"
#include "sdk/plugin.h"

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

class Distill final : public TrainerComponent {
 public:
  void run(Context& context) override {
    check_same_tokenizer(context.input("student"), context.input("teacher"));
    TrainerComponent::run(context);
  }

  Trained train(Context& context, const Params& params, const TrainingTask& task) override {
    const Losses losses = losses_from(params);
    if (!task.teacher) throw_invalid("there is no teacher to learn from", "distiller/distill");
    const auto objective = objective_for(task.model, task.data, task.port);
    const auto of_teacher = objective_for(*task.teacher, task.data, "teacher");
    std::optional<Session> guide;
    if (losses.soft > 0) guide.emplace(*task.teacher);
    const auto loss = [&](const TensorMap& values, const TensorMap& batch) {
      at::Tensor sum;
      const auto add = [&sum](const at::Tensor& part, double weight) {
        const at::Tensor weighted = at::mul(part, weight);
        sum = sum.defined() ? sum.add(weighted) : weighted;
      };
      if (losses.hard > 0) add(objective->hard(values, batch), losses.hard);
      if (guide) add(objective->soft(values, answers(*guide, *task.teacher, batch, *of_teacher), losses.temperature), losses.soft);
      return sum;
    };
    return train_graph(context, params, task, *objective, {objective->values(), loss});
  }

 private:
  bool distils() const override { return true; }

  static TensorMap answers(Session& teacher, const Graph& graph, const TensorMap& batch, const Objective& objective) {
    c10::NoGradGuard no_gradients;
    return teacher.run(inputs_for(graph, batch), objective.values());
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
      {"name": "losses", "type": "map<number>", "default": {"soft": 1.0, "hard": 0.5, "temperature": 2.0}, "help": "weights of the soft targets (the teacher's distribution) and the hard ones (the text), 0 where left out; and the temperature, 1 where left out"},)json" ESPALIER_TRAINING_PARAMETERS
                R"json(
    ],
    "depends": {"seed": true, "threads": true, "runtimes": ["torch"]},
    "estimate": {"memory_base": 1e9, "memory_per_byte": 3, "output_per_byte": 0.5}
  }]
})json",
                ESPALIER_COMPONENT("distiller/distill", Distill));
