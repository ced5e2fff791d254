#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "run/session.h"
#include "sdk/context.h"

namespace espalier {

/// Mean next-token cross-entropy in nats: logits [b, s, v] against input_ids [b, s] shifted by one; computed in f32.
at::Tensor causal_cross_entropy(const at::Tensor& logits, const at::Tensor& input_ids);
/// The token after each position of input_ids [b, s], as [b · s] int64; negative at the last position of a window, which has none.
at::Tensor next_tokens(const at::Tensor& input_ids);
/// The same of a batch of tokens; negative, too, before those that its "labels" leave out (below 0), where it has labels.
at::Tensor next_tokens(const TensorMap& batch);
/// Mean cross-entropy in nats over the labels [b · s] that are not negative: logits [b, s, v]; 0 where there is none. In f32.
at::Tensor next_token_cross_entropy(const at::Tensor& logits, const at::Tensor& next);
/// Σ over classes of KL(teacher ‖ student) at `temperature`, times temperature², mean over positions (Hinton et al., 2015): all of
/// them, or those that are true in `counted` [b · s].
at::Tensor soft_target_loss(const at::Tensor& student, const at::Tensor& teacher, double temperature,
                            const at::Tensor& counted = {});

struct TrainingOptions {
  std::int64_t steps = 100;
  std::int64_t batch = 1;         ///< windows per forward pass
  std::int64_t accumulation = 1;  ///< forward passes per step
  double learning_rate = 2e-4;
  std::int64_t warmup = 10;  ///< steps of linear warm-up, then cosine to `final_share` of the rate
  double final_share = 0.0;
  double weight_decay = 0.01;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double clip = 1.0;  ///< global gradient norm; 0 = off
  std::uint64_t seed = 0;
  std::int64_t evaluate_every = 0;  ///< steps between held-out evaluations; 0 = none
  std::int64_t patience = 0;        ///< stop after so many evaluations without a lower loss; 0 = never
  bool keep_best = false;           ///< end with the parameters of the evaluation with the lowest loss, not with the last ones
  std::int64_t resume_every = 0;    ///< steps between states written to disk; 0 = a twelfth of the run; negative = none
};
/// Learning rate of step `step` (0-based).
double scheduled_rate(const TrainingOptions& options, std::int64_t step);

/// What the loop may do besides its steps.
struct TrainingWatch {
  std::function<double()> heldout = {};  ///< mean loss on what is not trained on; evaluate_every needs it
  std::filesystem::path scratch = {};    ///< where states are kept until the run is whole; empty = nowhere
  std::string key = {};                  ///< names the run: a state of another key is not read
  /// What a pass's loss counts among those of its step, such as the tokens that it is a mean over; all alike where nothing is
  /// given.
  std::function<double(std::int64_t step, std::int64_t pass)> weight = {};
};
struct TrainingResult {
  std::vector<double> losses;
  std::int64_t tokens = 0;
  double seconds = 0;                                    ///< in steps; evaluations and states on disk are not counted
  std::vector<std::pair<std::int64_t, double>> heldout;  ///< (steps taken, loss)
  std::int64_t best_step = -1;                           ///< steps taken at the lowest held-out loss; -1 without evaluations
  std::int64_t resumed_at = 0;                           ///< steps that an earlier, broken run had taken
  bool stopped_early = false;                            ///< patience ran out
  std::optional<double> heldout_after;  ///< held-out loss of the parameters that the session is left with, if known
};
using LossFunction = std::function<at::Tensor(const TensorMap& batch)>;
/// The loop: AdamW (Loshchilov & Hutter, 2019), warm-up and cosine, accumulation, clipping; progress with loss and time left,
/// cancellation between forward passes; held-out evaluations with early stopping; states on disk, from which a broken run goes on
/// to the same bytes. `loss` gets the batch of one forward pass and returns a scalar with a graph; `batches(step, pass)` gives the
/// batch. context may be nullptr (tests).
TrainingResult train_loop(Session& session, const TrainingOptions& options,
                          const std::function<TensorMap(std::int64_t step, std::int64_t pass)>& batches, const LossFunction& loss,
                          Context* context, const TrainingWatch& watch = {});

}  // namespace espalier
