#include "run/training.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>
#include <optional>

#include "sdk/error.h"

namespace espalier {
namespace {

using Tensors = std::vector<at::Tensor>;

/// AdamW with decoupled decay, as PyTorch's: moments and a step count for each parameter, all updated by one fused kernel.
class AdamW {
 public:
  AdamW(Tensors parameters, const TrainingOptions& options) : parameters_(std::move(parameters)), options_(options) {
    for (const at::Tensor& p : parameters_) {
      first_.push_back(at::zeros_like(p));
      second_.push_back(at::zeros_like(p));
      steps_.push_back(at::zeros({}, at::TensorOptions().dtype(at::kFloat)));
    }
  }

  /// Clips the gradients to the global norm, takes a step and forgets them. A parameter that no loss reached stays as it is.
  void step(double rate) {
    c10::AutoGradMode off(false);
    Tensors parameters, gradients, first, second, steps;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      const at::Tensor gradient = parameters_[i].grad();
      if (!gradient.defined()) continue;
      parameters.push_back(parameters_[i]);
      gradients.push_back(gradient);
      first.push_back(first_[i]);
      second.push_back(second_[i]);
      steps.push_back(steps_[i]);
    }
    if (parameters.empty()) return;
    if (options_.clip > 0) {
      const double norm = at::stack(at::_foreach_norm(gradients)).norm().item<double>();
      const double factor = options_.clip / (norm + 1e-6);
      if (factor < 1) at::_foreach_mul_(gradients, factor);
    }
    at::_foreach_add_(steps, 1);
    at::_fused_adamw_(parameters, gradients, first, second, {}, steps, rate, options_.beta1, options_.beta2, options_.weight_decay,
                      options_.epsilon, /*amsgrad=*/false, /*maximize=*/false);
    for (at::Tensor& p : parameters_) p.mutable_grad().reset();
  }

 private:
  Tensors parameters_, first_, second_, steps_;
  const TrainingOptions& options_;
};

std::int64_t tokens_in(const TensorMap& inputs) {
  const auto ids = inputs.find("input_ids");
  return ids == inputs.end() ? 0 : ids->second.numel();
}

void check(const TrainingOptions& options, const Session& session) {
  if (session.trainable().empty())
    throw_invalid("nothing to train: no parameter of the session is trainable", {}, "call train() first, or widen the scope");
  if (options.steps < 1 || options.accumulation < 1 || options.batch < 1)
    throw_invalid(fmt::format("steps = {}, batch = {}, accumulation = {}: each must be 1 or more", options.steps, options.batch,
                              options.accumulation));
}

}  // namespace

double scheduled_rate(const TrainingOptions& options, std::int64_t step) {
  if (step < options.warmup) return options.learning_rate * static_cast<double>(step + 1) / static_cast<double>(options.warmup);
  const auto length = static_cast<double>(std::max<std::int64_t>(options.steps - options.warmup, 1));
  const double done = std::min(static_cast<double>(step - options.warmup) / length, 1.0);
  const double share = 0.5 * (1 + std::cos(std::numbers::pi * done));
  return options.learning_rate * (options.final_share + (1 - options.final_share) * share);
}

TrainingResult train_loop(Session& session, const TrainingOptions& options,
                          const std::function<TensorMap(std::int64_t step, std::int64_t pass)>& batches, const LossFunction& loss,
                          Context* context) {
  check(options, session);
  Tensors parameters;
  for (const std::string& name : session.trainable()) parameters.push_back(session.parameter(name));
  for (at::Tensor& p : parameters) p.mutable_grad().reset();
  AdamW optimizer(parameters, options);
  TrainingResult result;
  c10::AutoGradMode on(true);
  const std::int64_t log_every = std::max<std::int64_t>(options.steps / 50, 1);  // a log of about fifty lines, however long the run
  const auto start = std::chrono::steady_clock::now();
  for (std::int64_t step = 0; step < options.steps; ++step) {
    double mean = 0;
    for (std::int64_t pass = 0; pass < options.accumulation; ++pass) {
      if (context) context->check_cancelled();
      const TensorMap inputs = batches(step, pass);
      at::Tensor value = loss(inputs);
      const double number = value.item<double>();
      if (!std::isfinite(number))
        throw Error(ErrorCode::failed, fmt::format("the loss is {} at step {}", number, step), {},
                    "lower the learning rate, lengthen the warm-up, or clip the gradients");
      mean += number / static_cast<double>(options.accumulation);
      (options.accumulation == 1 ? value : value / static_cast<double>(options.accumulation)).backward();
      result.tokens += tokens_in(inputs);
    }
    optimizer.step(scheduled_rate(options, step));
    result.losses.push_back(mean);
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (!context) continue;
    context->progress({.step = static_cast<std::uint64_t>(step + 1),
                       .total = static_cast<std::uint64_t>(options.steps),
                       .label = "training",
                       .values = {{"loss", mean}}});
    if (step + 1 == options.steps || (step + 1) % log_every == 0)
      context->log(LogLevel::info,
                   fmt::format("step {} of {}: loss {:.5f}, rate {:.3g}, {:.1f} tokens a second", step + 1, options.steps, mean,
                               scheduled_rate(options, step), static_cast<double>(result.tokens) / std::max(result.seconds, 1e-9)));
  }
  return result;
}

}  // namespace espalier
