#pragma once
/// What convolutions of floats, of integer codes and of shifted samples have in common.
#include "graph/ops/rules.h"

namespace espalier::ops {

/// Lengths of the kernel in weights [M, C/group, kernel…]; throws unless they are known and kernel_shape, where given, says the
/// same.
Integers kernel_of(const NodeView& view, std::size_t weight);
/// Checks x (input 0) [batch, C, spatial…], the weights and the bias (a slot that the node may lack) against each other.
void check_convolution(const NodeView& view, std::size_t weight, std::size_t bias);
/// The output's shape after these checks.
Shape convolved(const NodeView& view, std::size_t weight, std::size_t bias);

}  // namespace espalier::ops
