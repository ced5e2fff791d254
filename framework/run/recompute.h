#pragma once
/// Activation checkpointing (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016): a stretch of the graph keeps its
/// inputs only, and is run again in the backward pass.
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace espalier {

/// One step of a plan, as the search for stretches sees it.
struct PlannedStep {
  std::string op;
  bool product = false;      ///< worth running twice: most of a block's memory is around its products
  std::vector<int> in, out;  ///< values by number; negative: absent
};
struct Stretch {
  std::size_t begin = 0, end = 0;  ///< positions in the plan
};
/// Stretches between places where one value alone carries gradients (the residual stream, besides what lives through most of the
/// plan), which hold a product and whose operators repeat elsewhere in the plan: a transformer's attention and feed-forward halves,
/// a CNN's layers. `carries`: by value, whether a gradient flows through it. Found by structure alone.
std::vector<Stretch> repeated_stretches(const std::vector<PlannedStep>& steps, const std::vector<bool>& carries);

/// Runs of elementwise operators that autograd would keep more values for than go into them, such as x·sigmoid(x)·y: run again they
/// cost next to nothing, and only x and y are kept.
std::vector<Stretch> elementwise_runs(const std::vector<PlannedStep>& steps, const std::vector<bool>& carries);

/// work(inputs), of which autograd keeps the inputs only; the backward pass calls `work` again, with gradients on. What `work` uses
/// must live until then. `differentiable`: by output, whether it carries a gradient.
using Recomputable = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs)>;
std::vector<at::Tensor> recomputed(const std::vector<at::Tensor>& inputs, Recomputable work, std::vector<bool> differentiable);

}  // namespace espalier
