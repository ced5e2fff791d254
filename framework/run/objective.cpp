#include "run/objective.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/mse_loss.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "run/head.h"
#include "run/training.h"
#include "sdk/error.h"

namespace espalier {

Objective::~Objective() = default;

WeightedLoss Objective::weighted(const TensorMap& student, const TensorMap& teacher, const TensorMap& batch, double hard_weight,
                                 double soft_weight, double temperature) const {
  WeightedLoss loss;
  const auto add = [&](const at::Tensor& part, double weight) {
    const at::Tensor product = weight == 1 ? part : part * weight;
    loss.sum = loss.sum.defined() ? loss.sum + product : product;
    return part.item<double>();
  };
  if (hard_weight > 0) loss.hard = add(hard(student, batch), hard_weight);
  if (soft_weight > 0) loss.soft = add(soft(student, teacher, batch, temperature), soft_weight);
  return loss;
}

namespace {

bool has(const std::vector<Value>& values, std::string_view name) {
  return std::any_of(values.begin(), values.end(), [&](const Value& v) { return v.name == name; });
}

void check_same_shape(const at::Tensor& student, const at::Tensor& teacher) {
  if (student.sizes() == teacher.sizes()) return;
  throw_invalid(
      fmt::format("the student answers [{}], the teacher [{}]", fmt::join(student.sizes(), ", "), fmt::join(teacher.sizes(), ", ")),
      "ports student, teacher", "take a teacher with the same vocabulary or classes");
}

class NextToken final : public Objective {
 public:
  NextToken(const Graph& graph, const Graph* teacher) : head_(find_head(graph, logits)) {
    if (teacher) of_teacher_ = find_head(*teacher, logits);
  }
  std::string_view name() const override { return "next token"; }
  std::vector<std::string> values() const override {
    if (!head_) return {logits};
    return {head_->hidden, head_->weight};
  }
  at::Tensor hard(const TensorMap& values, const TensorMap& batch) const override {
    if (head_) return weighted(values, {}, batch, 1, 0, 1).sum;
    if (batch.contains("labels")) return next_token_cross_entropy(values.at(logits), next_tokens(batch));
    return causal_cross_entropy(values.at(logits), batch.at("input_ids"));
  }
  at::Tensor soft(const TensorMap& student, const TensorMap& teacher, const TensorMap& batch, double temperature) const override {
    if (head_) return weighted(student, teacher, batch, 0, 1, temperature).sum;
    HeadTargets targets;
    find_teacher(teacher, targets);
    const at::Tensor answers = targets.teacher_logits.defined() ? targets.teacher_logits : targets.teacher.logits();
    check_same_shape(student.at(logits), answers);
    const at::Tensor counted = batch.contains("labels") ? next_tokens(batch).ge(0) : at::Tensor();
    return soft_target_loss(student.at(logits), answers, temperature, counted);
  }
  WeightedLoss weighted(const TensorMap& student, const TensorMap& teacher, const TensorMap& batch, double hard_weight,
                        double soft_weight, double temperature) const override {
    if (head_ && hard_weight + soft_weight > 0) {
      HeadTargets targets{.hard = hard_weight, .soft = soft_weight, .temperature = temperature};
      if (hard_weight > 0 || batch.contains("labels")) targets.labels = next_tokens(batch);
      if (batch.contains("labels")) {  // what does not count is not even answered
        targets.positions = targets.labels.ge(0).nonzero().flatten();
        targets.labels = targets.labels.index_select(0, targets.positions);
      }
      if (soft_weight > 0) find_teacher(teacher, targets);
      const HeadLoss loss = head_loss(values_of(*head_, student), targets);
      return {loss.sum, loss.hard, loss.soft};
    }
    return Objective::weighted(student, teacher, batch, hard_weight, soft_weight, temperature);
  }

 private:
  static constexpr const char* logits = "logits";

  static HeadValues values_of(const Head& head, const TensorMap& values) {
    return {values.at(head.hidden), values.at(head.weight), head.transposed};
  }
  void find_teacher(const TensorMap& teacher, HeadTargets& targets) const {
    if (const auto whole = teacher.find(logits); whole != teacher.end()) {
      targets.teacher_logits = whole->second;
    } else if (of_teacher_) {
      targets.teacher = values_of(*of_teacher_, teacher);
    } else {
      throw Error(ErrorCode::internal, "soft targets: the teacher gave no logits, and objective_for() was not told its graph");
    }
  }
  std::optional<Head> head_, of_teacher_;
};

/// Where a graph answers: a value, and the axis that its classes lie on.
struct Answer {
  std::string value;
  std::int64_t class_axis = 1;
};

/// The graph's first output; where that is a Softmax, what goes into it: losses over classes want scores, not shares.
Answer answer_of(const Graph& graph, std::string_view port) {
  if (graph.outputs.empty()) throw_invalid("the model has no output", fmt::format("port {}", port));
  Answer answer{graph.outputs.front().name};
  constexpr std::int64_t kOneAxis = 13;  // before it a Softmax ran over all axes from its own on
  for (const Node& node : graph.nodes) {
    if (node.op != "Softmax" || graph.opset() < kOneAxis || node.outputs.empty() || node.outputs.front() != answer.value) continue;
    answer = {node.inputs.front(), node.integer("axis", -1)};
  }
  return answer;
}

/// Targets under "labels", answers where answer_of() finds them.
class Labelled : public Objective {
 public:
  Labelled(Answer own, Answer teacher) : own_(std::move(own)), teacher_(std::move(teacher)) {}
  std::vector<std::string> values() const override { return {own_.value}; }

 protected:
  static const at::Tensor& labels(const TensorMap& batch) {
    const auto found = batch.find("labels");
    if (found == batch.end()) throw_invalid("the data has no labels", "port data", "give labels, or train on a teacher alone");
    return found->second;
  }
  Answer own_, teacher_;
};

/// Cross-entropy over classes: answers are logits [n, classes, …], or with the classes on the axis of the Softmax behind them;
/// labels [n, …].
class Classes final : public Labelled {
 public:
  using Labelled::Labelled;
  std::string_view name() const override { return "classes"; }
  at::Tensor hard(const TensorMap& values, const TensorMap& batch) const override {
    const at::Tensor& answer = values.at(own_.value);
    const at::Tensor logits = answer.movedim(own_.class_axis, 1), wanted = labels(batch).to(at::kLong);
    if (logits.dim() != wanted.dim() + 1)
      throw_invalid(fmt::format("labels of shape [{}] for answers of shape [{}], expected one class an answer",
                                fmt::join(wanted.sizes(), ", "), fmt::join(answer.sizes(), ", ")),
                    "port data");
    if (wanted.numel() > 0 && (wanted.min().item<std::int64_t>() < 0 || wanted.max().item<std::int64_t>() >= logits.size(1)))
      throw_invalid(fmt::format("a label lies outside the model's {} classes", logits.size(1)), "port data");
    return at::cross_entropy_loss(logits.scalar_type() == at::kDouble ? logits : logits.to(at::kFloat), wanted);
  }
  at::Tensor soft(const TensorMap& student, const TensorMap& teacher, const TensorMap&, double temperature) const override {
    const auto rows = [](const TensorMap& values, const Answer& answer) {
      return values.at(answer.value).movedim(answer.class_axis, -1);
    };
    const at::Tensor own = rows(student, own_), wanted = rows(teacher, teacher_);
    check_same_shape(own, wanted);
    return soft_target_loss(own.reshape({1, -1, own.size(-1)}), wanted.reshape({1, -1, own.size(-1)}), temperature);
  }
};

/// Squared error: answers and labels are values of one shape.
class Values final : public Labelled {
 public:
  using Labelled::Labelled;
  std::string_view name() const override { return "values"; }
  at::Tensor hard(const TensorMap& values, const TensorMap& batch) const override {
    const at::Tensor &answer = values.at(own_.value), &wanted = labels(batch);
    if (answer.sizes() != wanted.sizes())
      throw_invalid(fmt::format("labels of shape [{}] for answers of shape [{}]", fmt::join(wanted.sizes(), ", "),
                                fmt::join(answer.sizes(), ", ")),
                    "port data");
    return at::mse_loss(answer, wanted.to(answer.scalar_type()));
  }
  at::Tensor soft(const TensorMap& student, const TensorMap& teacher, const TensorMap&, double) const override {
    const at::Tensor &answer = student.at(own_.value), &wanted = teacher.at(teacher_.value);
    check_same_shape(answer, wanted);
    return at::mse_loss(answer, wanted);
  }
};

}  // namespace

std::unique_ptr<Objective> objective_for(const Graph& graph, const Dataset& data, std::string_view port, const Graph* teacher) {
  const std::string where = fmt::format("port {}", port);
  if (dynamic_cast<const TokenDataset*>(&data)) {
    if (has(graph.inputs, "input_ids") && has(graph.outputs, "logits")) return std::make_unique<NextToken>(graph, teacher);
    throw_invalid("the model is no causal language model: it needs an input \"input_ids\" and an output \"logits\"", where);
  }
  const TensorMap first = data.batch({0});
  const auto labels = first.find("labels");
  if (labels != first.end() && labels->second.is_floating_point()) {
    const auto output = [](const Graph& of) { return Answer{of.outputs.empty() ? "" : of.outputs.front().name}; };
    if (graph.outputs.empty()) throw_invalid("the model has no output", where);
    return std::make_unique<Values>(output(graph), output(teacher ? *teacher : graph));
  }
  return std::make_unique<Classes>(answer_of(graph, port), answer_of(teacher ? *teacher : graph, "teacher"));
}

}  // namespace espalier
