#pragma once
/// The head of a language model and the loss over its vocabulary in one walk over the positions. The matrix of logits (512
/// positions over 49,152 tokens: 100 MB) never exists: a few positions at a time are answered, compared with their targets and
/// turned into gradients (as in the fused linear cross-entropy of Liger Kernel: Hsu et al., 2024).
#include <cstdint>
#include <optional>
#include <string>

#include "run/tensor.h"

namespace espalier {

/// logits = hidden · weight, where weight is an initializer of [width, vocabulary], or [vocabulary, width] when `transposed`; or
/// the value of a rounded one (graph/rounded_weights.h).
struct Head {
  std::string hidden, weight;
  bool transposed = false;
};
/// The head that makes `logits`: a MatMul or a plain Gemm with an initializer, perhaps through Transpose (a tied embedding) and
/// Reshape. Nothing for other graphs, a quantized head or one with a bias among them.
std::optional<Head> find_head(const Graph& graph, const std::string& logits);

/// A head with its values: hidden [..., width], weight as the head has it.
struct HeadValues {
  at::Tensor hidden = {}, weight = {};
  bool transposed = false;

  std::int64_t vocabulary() const;
  /// All logits, [..., vocabulary].
  at::Tensor logits() const;
};

/// What the answers are compared with; a part with weight 0 is left out.
struct HeadTargets {
  double hard = 0;         ///< weight of the cross-entropy in nats, mean over labels that are not negative; 0 where there is none
  at::Tensor labels = {};  ///< [positions] int64
  double soft = 0;  ///< weight of KL(teacher ‖ student) at `temperature` · temperature², mean over positions (Hinton et al., 2015)
  double temperature = 1;
  HeadValues teacher = {};         ///< its hidden state has as many positions; no gradient goes there
  at::Tensor teacher_logits = {};  ///< [..., vocabulary], instead of `teacher`
  /// [n] int64, ascending: the numbers of the only positions that are walked and compared; `labels` [n] are theirs. Undefined: all.
  at::Tensor positions = {};
};

struct HeadLoss {
  at::Tensor sum;              ///< the weighted sum, with a graph to hidden and weight
  std::optional<double> hard;  ///< the parts, before their weights
  std::optional<double> soft;
};

/// Products are computed in the type of `hidden` (bf16 where the session computes products so), everything else in f32 (f64 where
/// hidden is). Gradients are made on the way forward, so the walk happens once. `positions`: at a time; 0 chooses.
HeadLoss head_loss(const HeadValues& student, const HeadTargets& targets, std::int64_t positions = 0);

}  // namespace espalier
