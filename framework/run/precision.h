#pragma once
#include "graph/graph.h"

namespace espalier {

/// How an operator takes floating inputs when products are computed in a narrower type than the rest (as PyTorch's autocast does).
enum class Operands {
  narrow,  ///< a product: inputs are cast to the narrow type, and so is the result
  any,     ///< inputs as they come; where they differ the wider type wins
  wide,    ///< norms, exponentials, sums: inputs are cast back
};
Operands operands_of(const Node& node);

/// Whether this processor multiplies bf16 faster than f32: it has the instructions (AVX512-BF16, with which AMX comes, or Arm's).
/// With AVX-512 alone oneDNN has kernels, six times as slow as those of f32 (measured on a Xeon of that kind); with less, LibTorch
/// falls back to loops that take fifteen times as long.
bool has_bf16_kernels();

}  // namespace espalier
