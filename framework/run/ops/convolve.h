#pragma once
#include <ATen/core/Tensor.h>

#include "run/op.h"

namespace espalier {

/// x [batch, C, spatial…] convolved with weights [M, C/group, kernel…] as the node's attributes say (run/window.h, group).
at::Tensor convolve(const RunView& v, at::Tensor x, const at::Tensor& weight, const std::optional<at::Tensor>& bias);

}  // namespace espalier
