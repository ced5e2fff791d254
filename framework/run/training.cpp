#include "run/training.h"

#include <ATen/TensorOperators.h>
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

#include "run/resume.h"
#include "sdk/error.h"

namespace espalier {
namespace {

using Tensors = std::vector<at::Tensor>;

/// AdamW with decoupled decay, as PyTorch's: moments and a step count for each parameter, updated by its fused kernel.
class AdamW {
 public:
  AdamW(Session& session, const TrainingOptions& options) : session_(session), options_(options) {
    for (const std::string& name : session.trainable()) {
      const at::Tensor& p = parameters_.emplace_back(session.parameter(name));
      first_.push_back(at::zeros_like(p));
      second_.push_back(at::zeros_like(p));
      steps_.push_back(at::zeros({}, at::TensorOptions().dtype(at::kFloat)));
    }
    // In the type of products gradients cannot be added up over passes.
    session.narrow_gradients(options.accumulation == 1);
  }
  ~AdamW() { session_.narrow_gradients(false); }
  AdamW(const AdamW&) = delete;

  /// Clips the gradients to the global norm, takes a step and forgets them. A parameter that no loss reached stays as it is.
  void step(double rate) {
    c10::AutoGradMode off(false);
    Tensors gradients, reached;
    for (const std::string& name : session_.trainable()) {
      gradients.push_back(session_.gradient(name));
      if (gradients.back().defined()) reached.push_back(gradients.back());
    }
    if (reached.empty()) return;
    double factor = 1;
    if (options_.clip > 0) {
      const double norm = at::stack(at::_foreach_norm(reached, 2, parameters_.front().scalar_type())).norm().item<double>();
      factor = std::min(1.0, options_.clip / (norm + 1e-6));
    }
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      if (!gradients[i].defined()) continue;
      at::Tensor gradient = gradients[i].to(parameters_[i].scalar_type());  // one at a time in the wide type
      if (factor < 1) gradient.mul_(factor);
      steps_[i].add_(1);
      at::_fused_adamw_({parameters_[i]}, {gradient}, {first_[i]}, {second_[i]}, {}, {steps_[i]}, rate, options_.beta1,
                        options_.beta2, options_.weight_decay, options_.epsilon, /*amsgrad=*/false, /*maximize=*/false);
    }
    session_.forget_gradients();
  }

  /// Parameters, moments, step counts: what a state holds, in a fixed order.
  Tensors all() const {
    Tensors list = parameters_;
    for (const Tensors* more : {&first_, &second_, &steps_}) list.insert(list.end(), more->begin(), more->end());
    return list;
  }
  const Tensors& parameters() const { return parameters_; }

 private:
  Session& session_;
  Tensors parameters_, first_, second_, steps_;
  const TrainingOptions& options_;
};

/// Without padding.
std::int64_t tokens_in(const TensorMap& inputs) {
  const auto ids = inputs.find("input_ids"), mask = inputs.find("attention_mask");
  if (ids == inputs.end()) return 0;
  const bool masked = mask != inputs.end() && mask->second.sizes() == ids->second.sizes();
  return masked ? mask->second.sum().item<std::int64_t>() : ids->second.numel();
}

void check(const TrainingOptions& options, const Session& session, const TrainingWatch& watch) {
  if (session.trainable().empty())
    throw_invalid("nothing to train: no parameter of the session is trainable", {}, "call train() first, or widen the scope");
  if (options.steps < 1 || options.accumulation < 1 || options.batch < 1)
    throw_invalid(fmt::format("steps = {}, batch = {}, accumulation = {}: each must be 1 or more", options.steps, options.batch,
                              options.accumulation));
  const char* asks = options.patience > 0 ? "patience" : options.keep_best ? "keep = \"best\"" : nullptr;
  if (asks && (options.evaluate_every < 1 || !watch.heldout))
    throw_invalid(fmt::format("{} needs held-out evaluations", asks), "parameter evaluate_every",
                  "give the stage a data set as `heldout`, and evaluate_every = 50 or so");
  if (options.evaluate_every > 0 && !watch.heldout)
    throw_invalid(fmt::format("evaluate_every = {}, but there is nothing to evaluate on", options.evaluate_every),
                  "parameter evaluate_every", "give the stage a data set as `heldout`");
}

/// One run of the loop, with what it remembers from step to step.
class Run {
 public:
  Run(Session& session, const TrainingOptions& options, const LossFunction& loss, Context* context, const TrainingWatch& watch)
      : options_(options), loss_(loss), context_(context), watch_(watch), optimizer_(session, options) {
    if (!watch.scratch.empty()) {
      state_file_ = watch.scratch / ("training-" + watch.key.substr(0, 16));
      best_file_ = state_file_.string() + "-best";
    }
    save_every_ = options.resume_every > 0 ? options.resume_every : (options.steps + 11) / 12;
    saving_ = options.resume_every >= 0 && !state_file_.empty();
  }

  void resume();
  /// False when nothing is left to do.
  bool unfinished() const { return state_.step < options_.steps && !stopped_; }
  void step(const std::function<TensorMap(std::int64_t step, std::int64_t pass)>& batches);
  TrainingResult finish();

 private:
  using Clock = std::chrono::steady_clock;
  static double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

  /// `share`: of the step; an even one where there is none.
  double pass(const TensorMap& inputs, std::optional<double> share);
  std::vector<double> shares() const;
  void report(double mean);
  void evaluate();
  void save();
  void warn(const std::string& text) const {
    if (context_) context_->log(LogLevel::warning, text);
  }

  const TrainingOptions& options_;
  const LossFunction& loss_;
  Context* context_;
  const TrainingWatch& watch_;
  AdamW optimizer_;
  TrainingState state_;
  Tensors best_;  ///< only where there is no folder to keep them in
  std::filesystem::path state_file_, best_file_;
  std::int64_t save_every_, resumed_at_ = 0, without_gain_ = 0;
  bool saving_, stopped_ = false;
  Clock::time_point saved_ = Clock::now();
  double save_seconds_ = 0;  ///< what writing the last state took
};

void Run::resume() {
  if (!saving_) return;
  std::string why;
  const auto found = read_state(state_file_, watch_.key, optimizer_.all(), why);
  if (!why.empty()) warn(fmt::format("{}: ignored, {}; training starts over", state_file_.string(), why));
  if (!found) return;
  state_ = *found;
  resumed_at_ = state_.step;
  for (const auto& [at, loss] : state_.heldout) without_gain_ = at == state_.best_step ? 0 : without_gain_ + 1;
  if (context_)
    context_->log(LogLevel::info,
                  fmt::format("an earlier run was broken off: going on after step {} of {}", state_.step, options_.steps));
}

/// What the passes of the step at hand count, 1 together; empty where all count alike.
std::vector<double> Run::shares() const {
  std::vector<double> shares;
  if (!watch_.weight || options_.accumulation == 1) return shares;
  double all = 0;
  for (std::int64_t number = 0; number < options_.accumulation; ++number)
    all += shares.emplace_back(watch_.weight(state_.step, number));
  if (all <= 0 || std::equal(shares.begin() + 1, shares.end(), shares.begin())) return {};
  for (double& share : shares) share /= all;
  return shares;
}

double Run::pass(const TensorMap& inputs, std::optional<double> share) {
  at::Tensor value = loss_(inputs);
  const double number = value.item<double>();
  if (!std::isfinite(number))
    throw Error(ErrorCode::failed, fmt::format("the loss is {} at step {}", number, state_.step), {},
                "lower the learning rate, lengthen the warm-up, or clip the gradients");
  const auto even = static_cast<double>(options_.accumulation);
  (share ? value * *share : options_.accumulation == 1 ? value : value / even).backward();
  state_.tokens += tokens_in(inputs);
  return share ? number * *share : number / even;
}

void Run::step(const std::function<TensorMap(std::int64_t step, std::int64_t pass)>& batches) {
  const auto start = Clock::now();
  const std::vector<double> parts = shares();
  double mean = 0;
  for (std::int64_t number = 0; number < options_.accumulation; ++number) {
    if (context_) context_->check_cancelled();
    mean +=
        pass(batches(state_.step, number), parts.empty() ? std::nullopt : std::optional(parts[static_cast<std::size_t>(number)]));
  }
  optimizer_.step(scheduled_rate(options_, state_.step));
  state_.losses.push_back(mean);
  ++state_.step;
  state_.seconds += since(start);
  report(mean);
  if (options_.evaluate_every > 0 && (state_.step % options_.evaluate_every == 0 || state_.step == options_.steps)) evaluate();
  // A state that would save two seconds of work, or ten times its own writing, is not worth it, unless the recipe asked.
  const bool worth = options_.resume_every > 0 || since(saved_) > std::max(2.0, 10 * save_seconds_);
  if (saving_ && unfinished() && state_.step % save_every_ == 0 && worth) {
    const auto start = std::chrono::steady_clock::now();
    save();
    save_seconds_ = since(start);
  }
}

void Run::report(double mean) {
  if (!context_) return;
  context_->progress({.step = static_cast<std::uint64_t>(state_.step),
                      .total = static_cast<std::uint64_t>(options_.steps),
                      .label = "training",
                      .values = {{"loss", mean}}});
  const std::int64_t log_every = std::max<std::int64_t>(options_.steps / 50, 1);  // about fifty lines, however long the run
  if (state_.step == options_.steps || state_.step % log_every == 0)
    context_->log(LogLevel::info, fmt::format("step {} of {}: loss {:.5f}, rate {:.3g}, {:.1f} tokens a second", state_.step,
                                              options_.steps, mean, scheduled_rate(options_, state_.step - 1),
                                              static_cast<double>(state_.tokens) / std::max(state_.seconds, 1e-9)));
}

void Run::evaluate() {
  const double loss = watch_.heldout();
  state_.heldout.emplace_back(state_.step, loss);
  if (context_) context_->log(LogLevel::info, fmt::format("step {}: held-out loss {:.5f}", state_.step, loss));
  if (loss < state_.best_loss) {
    state_.best_loss = loss;
    state_.best_step = state_.step;
    without_gain_ = 0;
    if (!options_.keep_best) return;
    if (best_file_.empty()) {
      best_.clear();
      for (const at::Tensor& each : optimizer_.parameters()) best_.push_back(each.detach().clone());
    } else {
      write_state(best_file_, watch_.key, {.step = state_.step, .losses = state_.losses}, optimizer_.parameters());
    }
    return;
  }
  stopped_ = options_.patience > 0 && ++without_gain_ >= options_.patience && state_.step < options_.steps;
  if (stopped_ && context_)
    context_->log(LogLevel::info, fmt::format("stopped at step {}: {} evaluations without a loss below {:.5f} (step {})",
                                              state_.step, without_gain_, state_.best_loss, state_.best_step));
}

void Run::save() try {
  write_state(state_file_, watch_.key, state_, optimizer_.all());
  saved_ = Clock::now();
} catch (const Error& error) {
  warn(fmt::format("{}; a run that is broken off will start over", error.what()));
  saving_ = false;
}

TrainingResult Run::finish() {
  TrainingResult result;
  if (!state_.heldout.empty() && state_.heldout.back().first == state_.step) result.heldout_after = state_.heldout.back().second;
  if (options_.keep_best && state_.best_step >= 0 && state_.best_step != state_.step) {
    c10::AutoGradMode off(false);
    std::string why;
    if (best_file_.empty()) {
      for (std::size_t i = 0; i < best_.size(); ++i) at::Tensor(optimizer_.parameters()[i]).copy_(best_[i]);
    } else if (const auto best = read_state(best_file_, watch_.key, optimizer_.parameters(), why);
               !best || best->step != state_.best_step) {
      throw Error(ErrorCode::failed, fmt::format("the best parameters cannot be read back: {}", why.empty() ? "no file" : why),
                  best_file_.string(), "run the stage again");
    }
    result.heldout_after = state_.best_loss;
  }
  std::error_code ignored;
  if (!best_file_.empty()) std::filesystem::remove(best_file_, ignored);
  if (!state_file_.empty()) std::filesystem::remove(state_file_, ignored);
  result.losses = std::move(state_.losses);
  result.tokens = state_.tokens;
  result.seconds = state_.seconds;
  result.heldout = std::move(state_.heldout);
  result.best_step = state_.best_step;
  result.resumed_at = resumed_at_;
  result.stopped_early = stopped_;
  return result;
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
                          Context* context, const TrainingWatch& watch) {
  check(options, session, watch);
  c10::AutoGradMode on(true);
  Run run(session, options, loss, context, watch);
  run.resume();
  while (run.unfinished()) run.step(batches);
  return run.finish();
}

}  // namespace espalier
