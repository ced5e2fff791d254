#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "run/dataset.h"
#include "run/tensor.h"

namespace espalier {

/// A sum of losses, and each one before its weight.
struct WeightedLoss {
  at::Tensor sum;
  std::optional<double> hard, soft;
};

/// What a model is to become good at, told by graph and data: next tokens, classes, or values. Training minimises it, metrics take
/// its gradient, distillation compares a student with its teacher by it.
class Objective {
 public:
  virtual ~Objective();
  virtual std::string_view name() const = 0;
  /// The values of the graph that a forward pass has to give (Session::run's `wanted`).
  virtual std::vector<std::string> values() const = 0;
  /// Mean loss against the data itself (hard targets), a scalar: nats, or squared error. `batch` is as the data set gave it; tokens
  /// that its labels leave out are no part of the mean. Throws Error(invalid_input) where the data has no targets, or some outside
  /// what the model can answer.
  virtual at::Tensor hard(const TensorMap& values, const TensorMap& batch) const = 0;
  /// Mean loss against a teacher's values (soft targets): KL(teacher ‖ student) at `temperature` times temperature² (Hinton et al.,
  /// 2015), or squared error where there are no classes; over the positions before tokens that count, where `batch` has labels of
  /// tokens. Throws Error(invalid_input) when the two answer differently shaped.
  virtual at::Tensor soft(const TensorMap& student, const TensorMap& teacher, const TensorMap& batch, double temperature) const = 0;
  /// `hard_weight` · hard + `soft_weight` · soft; in one walk where the model's head allows it. A part with weight 0 is not
  /// computed.
  virtual WeightedLoss weighted(const TensorMap& student, const TensorMap& teacher, const TensorMap& batch, double hard_weight,
                                double soft_weight, double temperature) const;
};

/// Token data trains next tokens (input_ids → logits); labels that are integers train classes, floating ones values, both by the
/// graph's first output; where that comes out of a Softmax, classes are compared by what goes in. Throws Error(invalid_input) when
/// graph and data do not go together. `port` names the model in messages.
/// A language model with a plain head (run/head.h) gives its last hidden state and the head's weight instead of logits; `teacher`
/// is the graph that soft() and weighted() compare with, whose values may come so, too.
std::unique_ptr<Objective> objective_for(const Graph& graph, const Dataset& data, std::string_view port = "model",
                                         const Graph* teacher = nullptr);

}  // namespace espalier
