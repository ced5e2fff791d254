#pragma once
/// Padding, told by a batch's "attention_mask", left out of what is measured on the values of a model.
#include <string>

#include "run/tensor.h"

namespace espalier {

/// Which positions of a batch are real: its "attention_mask" as [batch, positions] bool. Undefined where that leaves nothing out,
/// or the batch has none.
at::Tensor real_positions(const TensorMap& batch);

/// The rows of real positions: [batch, positions, …] or [batch · positions, …] becomes [real, …]. `value` itself where `real` is
/// undefined. Throws Error(unsupported) naming `what` for a value whose first axes are others.
at::Tensor without_padding(const at::Tensor& value, const at::Tensor& real, const std::string& what);

}  // namespace espalier
