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

/// Whether this processor has kernels for products of bf16: oneDNN's need AVX-512 (BW, DQ, VL). Elsewhere LibTorch falls back to
/// loops that take fifteen times as long as f32 products.
bool has_bf16_kernels();

}  // namespace espalier
