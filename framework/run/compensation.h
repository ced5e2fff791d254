#pragma once
/// What the kept channels can make good of a cut without training: the weights that read a cut channel are refitted so that, over
/// data, their products stay as near to the uncut model's as least squares allow (the update of Optimal Brain Surgeon, Hassibi &
/// Stork, 1993, for whole input columns; used layer by layer by SlimGPT, Ling et al., NeurIPS 2024).
#include <string>
#include <vector>

#include "graph/surgery.h"
#include "run/objective.h"
#include "sdk/context.h"

namespace espalier {

/// One refitted weight: error of its product over the data, relative to the product itself (root mean square), with the channels
/// gone, before and after the refit.
struct Compensated {
  std::string tensor;
  double error_before = 0, error_after = 0;
};

struct Compensation {
  std::int64_t samples = 32;  ///< examples, spread evenly over the data
  std::int64_t batch = 1;
  DType products = DType::undefined;  ///< of the passes (SessionOptions::products)
  double ridge = 0.01;                ///< added to the diagonal of the inputs' second moments, as a share of its mean
};

/// A copy of `graph` (shapes as they were, for cut() to slice) whose readers of the removed units are refitted: for a product x·W
/// with second moments H = E[xᵀx], kept rows K and removed rows R, W_K += (H_KK + λI)⁻¹ H_KR W_R. Refitted are MatMul and Gemm
/// weights that read a removed channel along their inner axis and nothing else; other readers (convolutions, depthwise weights)
/// stay as they are. Weights in f32, f16, bf16 or f64; quantized ones are left alone.
Graph compensate(Context& context, const Graph& graph, const std::vector<CoupledGroup>& groups, const Removal& removal,
                 const Dataset& data, const Compensation& options, std::vector<Compensated>& report);

}  // namespace espalier
