#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "run/session.h"
#include "sdk/context.h"

namespace espalier {

/// Mean next-token cross-entropy in nats: logits [b, s, v] against input_ids [b, s] shifted by one; computed in f32.
at::Tensor causal_cross_entropy(const at::Tensor& logits, const at::Tensor& input_ids);
/// Σ over classes of KL(teacher ‖ student) at `temperature`, times temperature², mean over positions (Hinton et al., 2015).
at::Tensor soft_target_loss(const at::Tensor& student, const at::Tensor& teacher, double temperature);

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
};
/// Learning rate of step `step` (0-based).
double scheduled_rate(const TrainingOptions& options, std::int64_t step);

/// The loop: AdamW (Loshchilov & Hutter, 2019), warm-up and cosine, accumulation, clipping; progress with loss and time left,
/// cancellation between forward passes. `loss` gets the batch of one forward pass and returns a scalar with a graph.
struct TrainingResult {
  std::vector<double> losses;
  std::int64_t tokens = 0;
  double seconds = 0;
};
using LossFunction = std::function<at::Tensor(const TensorMap& batch)>;
/// `batches(step, pass)` gives the batch of each forward pass. context may be nullptr (tests).
TrainingResult train_loop(Session& session, const TrainingOptions& options,
                          const std::function<TensorMap(std::int64_t step, std::int64_t pass)>& batches, const LossFunction& loss,
                          Context* context);

}  // namespace espalier
