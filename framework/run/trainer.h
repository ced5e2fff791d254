#pragma once
/// What finetuning and distillation share, as a stage and inside other stages (iterative pruning).
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "run/objective.h"
#include "run/session.h"
#include "run/training.h"
#include "sdk/component.h"
#include "sdk/context.h"

namespace espalier {

/// What is trained on what. The graphs and data sets are the caller's and outlive the call.
struct TrainingTask {
  const Graph& model;
  const Graph* teacher = nullptr;  ///< distillation only
  const Dataset& data;
  const Dataset* heldout = nullptr;  ///< measured before and after, never trained on
  std::string_view port = "model";   ///< what messages call the model
};

struct Trained {
  Graph model;
  TrainingResult result;
  std::optional<double> heldout_before, heldout_after;  ///< mean hard loss
  std::map<std::string, double> figures;                ///< a trainer's own, for the stage around it
  std::map<std::string, Json> details;
};

/// C++ interface of distillers.
class Trainer {
 public:
  static constexpr std::string_view interface_id = "espalier.trainer/1";
  virtual ~Trainer();
  /// `params`: the distiller's own, as its manifest declares them.
  virtual Trained train(Context& context, const Params& params, const TrainingTask& task) = 0;
};

/// A trainer as a component. As a stage it reads port `model` (or `student` and `teacher`), `data` and perhaps `heldout`; it writes
/// `model`, the figures parameters, loss_first, loss_last, heldout_loss_before, heldout_loss_after (of what is returned),
/// steps_taken, tokens, tokens_per_second, and "curve.loss"; with evaluations also best_step, heldout_loss_best, kept_step and
/// "curve.heldout".
class TrainerComponent : public Component, public Trainer {
 public:
  void run(Context& context) override;
  void* interface(std::string_view id) override;

 protected:
  /// Whether the ports are student and teacher instead of model.
  virtual bool distils() const { return false; }
};

/// The loss of one forward pass, from what the session returned for `wanted` and the batch.
struct PassLoss {
  std::vector<std::string> wanted;
  std::function<at::Tensor(const TensorMap& values, const TensorMap& batch)> loss;
  std::vector<std::string> beside = {};  ///< initializers that are trained whatever `train` names (projections, adapters)
  bool only_beside = false;              ///< nothing else is
};

/// Trains task.model by `loss`, with the options that every distiller has (run/training_parameters.h).
Trained train_graph(Context& context, const Params& params, const TrainingTask& task, const Objective& objective,
                    const PassLoss& loss);

/// Mean hard loss of a model over all examples, each by its weight, without gradients; progress is told under `label`. `session`
/// runs `model`.
double mean_loss(Session& session, const Graph& model, const Dataset& data, const Objective& objective, Context& context,
                 std::string_view label);

/// How sessions of a distiller compute: its parameter `precision`. For teachers; train_graph() sees to the trained one.
SessionOptions session_options(const Params& params);

/// Initializers that training may change: floating point, more than a scalar, and no table or statistic that only looks like a
/// weight (rotary caches, a batch norm's running mean and variance, the scales of quantized tensors). `patterns` are scopes; throws
/// Error(invalid_input) when they mean none.
std::vector<std::string> trainable_weights(const Graph& graph, const std::vector<std::string>& patterns);

}  // namespace espalier
