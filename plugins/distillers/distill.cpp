// Distillation (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015): the student learns the teacher's whole
// answers (soft targets), the data itself (hard targets), and what flows inside the teacher: hidden states after blocks, attention
// distributions.
#include <ATen/ops/mul.h>
#include <c10/core/GradMode.h>

#include <optional>

#include "formats/spilled_tensors.h"
#include "run/adapter_training.h"
#include "run/features.h"
#include "run/session.h"
#include "run/training_parameters.h"
#include "sdk/plugin.h"

using namespace espalier;

namespace {

struct Losses {
  double soft = 0, hard = 0, hidden = 0, attention = 0, temperature = 1;
};

Losses losses_from(const Params& params) {
  Losses losses;
  const std::map<std::string, double*> known{{"soft", &losses.soft},
                                             {"hard", &losses.hard},
                                             {"hidden", &losses.hidden},
                                             {"attention", &losses.attention},
                                             {"temperature", &losses.temperature}};
  for (const auto& [name, value] : params.numbers("losses")) {
    auto at = known.find(name);
    if (at == known.end()) {
      // A slip is near one of the names; anything else is another loss that this component does not have.
      std::string near;
      for (const auto& [candidate, target] : known) {
        if (candidate.substr(0, 2) == name.substr(0, 2)) near = fmt::format("did you mean \"{}\"? ", candidate);
      }
      throw_invalid(fmt::format("losses: there is no \"{}\"", name), "parameter losses",
                    near + "there are: soft, hard, hidden, attention, temperature");
    }
    if (value < 0 || (name == "temperature" && value == 0)) {
      throw_invalid(fmt::format("losses: {} = {} must be {}", name, value, name == "temperature" ? "above 0" : "0 or more"),
                    "parameter losses");
    }
    *at->second = value;
  }
  if (losses.soft + losses.hard + losses.hidden + losses.attention == 0) {
    throw_invalid("losses: nothing has a weight, so there is nothing to learn", "parameter losses",
                  "such as: losses = { soft = 1.0, temperature = 2.0 }");
  }
  return losses;
}

FeatureOptions feature_options(const Params& params, const Losses& losses, std::uint64_t seed) {
  FeatureOptions options;
  options.hidden = losses.hidden > 0;
  options.attention = losses.attention > 0;
  options.measure = params.text("hidden_loss") == "cosine" ? HiddenMeasure::cosine : HiddenMeasure::mse;
  options.layer_map = params.texts("layer_map");
  options.seed = seed;
  if (!options.hidden && !options.attention && options.layer_map != std::vector<std::string>{"auto"}) {
    throw_invalid("layer_map is given, but no loss compares layers", "parameter layer_map",
                  "give losses.hidden or losses.attention a weight");
  }
  return options;
}

/// What each loss was, forward pass by forward pass, before its weight.
class Curves {
 public:
  void add(const std::string& name, double value) { curves_[name].push_back(value); }
  void write(Trained& trained) const {
    for (const auto& [name, curve] : curves_) {
      Json points = Json::array();
      for (std::size_t i = 0; i < curve.size(); ++i) points.push_back({i + 1, curve[i]});
      trained.details["curve.loss_" + name] = std::move(points);
      trained.figures["loss_" + name + "_first"] = curve.front();
      trained.figures["loss_" + name + "_last"] = curve.back();
    }
  }

 private:
  std::map<std::string, std::vector<double>> curves_;
};

Json table_of(const FeatureLosses& features) {
  Json rows = Json::array();
  for (const auto& row : features.rows()) rows.push_back({row.student, row.teacher, row.width, row.teacher_width, row.attentions});
  return {{"columns", {"student", "teacher", "width", "teacher width", "attentions"}}, {"rows", std::move(rows)}};
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
    const auto objective = objective_for(task.model, task.data, task.port, task.teacher);
    const auto of_teacher = objective_for(*task.teacher, task.data, "teacher");
    const FeatureLosses features(task.model, *task.teacher, feature_options(params, losses, context.seed()));
    const auto together = [](std::vector<std::string> names, const std::vector<std::string>& more) {
      names.insert(names.end(), more.begin(), more.end());
      return names;
    };
    const auto asked = together(of_teacher->values(), features.teacher_values());
    std::optional<Session> guide;
    if (losses.soft > 0 || !features.rows().empty()) {
      SessionOptions options = session_options(params);
      options.release_weights = true;  // the student's backward pass needs the room
      options.narrowed = spill_into(context.scratch(), 0);
      guide.emplace(features.teacher(), options);
    }
    Curves curves;
    const auto loss = [&](const TensorMap& values, const TensorMap& batch) {
      const TensorMap answers = guide ? ask(*guide, features.teacher(), batch, asked) : TensorMap{};
      const WeightedLoss answered = objective->weighted(values, answers, batch, losses.hard, losses.soft, losses.temperature);
      if (answered.hard) curves.add("hard", *answered.hard);
      if (answered.soft) curves.add("soft", *answered.soft);
      at::Tensor sum = answered.sum;
      const auto add = [&](const char* name, double weight, auto&& compute) {
        if (weight == 0) return;
        const at::Tensor part = compute();
        curves.add(name, part.item<double>());
        const at::Tensor weighted = at::mul(part, weight);
        sum = sum.defined() ? sum.add(weighted) : weighted;
      };
      add("hidden", losses.hidden, [&] { return features.hidden(values, answers, batch); });
      add("attention", losses.attention, [&] { return features.attention(values, answers, batch); });
      return sum;
    };
    PassLoss pass{together(objective->values(), features.student_values()), loss, features.projections()};
    Trained trained = train_with_adapter(context, params, {features.student(), task.teacher, task.data, task.heldout, task.port},
                                         *objective, std::move(pass));
    trained.model = features.strip(trained.model);
    curves.write(trained);
    if (!features.rows().empty()) trained.details["layers"] = table_of(features);
    if (!features.projections().empty()) trained.figures["projections"] = static_cast<double>(features.projections().size());
    return trained;
  }

 private:
  bool distils() const override { return true; }

  static TensorMap ask(Session& teacher, const Graph& graph, const TensorMap& batch, const std::vector<std::string>& values) {
    c10::NoGradGuard no_gradients;
    return teacher.run(inputs_for(graph, batch), values);
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
      {"name": "losses", "type": "map<number>", "default": {"soft": 1.0, "hard": 0.5, "temperature": 2.0}, "help": "weights, 0 where left out: soft (the teacher's answers, at a temperature, 1 where left out), hard (the data), hidden (the states after blocks), attention (what attends to what; memory grows with heads times length squared)"},
      {"name": "hidden_loss", "type": "string", "default": "mse", "choices": ["mse", "cosine"], "help": "how hidden states are compared: squared difference over the teacher's mean square, or 1 - cosine, of each position"},
      {"name": "layer_map", "type": "list<string>", "default": ["auto"], "help": "which blocks are compared: auto (the same share of the depth), STUDENT:TEACHER pairs of numbers from 0 or scopes, or a teacher's block for each of the student's"},)json" ESPALIER_TRAINING_PARAMETERS
                "," ESPALIER_ADAPTER_PARAMETERS
                R"json(
    ],
    "depends": {"seed": true, "threads": true, "runtimes": ["torch"]},
    "estimate": {"memory": "1.5e8 + if(adapter == \"none\", 4, 1.2) * student.bytes + batch * data.sequence * if(checkpoint, 0.35, 0.8) * student.activation_bytes",
                 "seconds": "3 + steps * (accumulation * batch * data.sequence * 6 * student.macs / (0.75 * machine.flops) + 8 * student.bytes / machine.bandwidth) + 2 * heldout.count * heldout.sequence * 2 * student.macs / (0.75 * machine.flops) + steps * accumulation * batch * data.sequence * 2 * teacher.macs / (0.75 * machine.flops)",
                 "memory_base": 1e9, "memory_per_byte": 3, "output_per_byte": 0.5}
  }]
})json",
                ESPALIER_COMPONENT("distiller/distill", Distill));
