#include <ATen/ops/cat.h>
#include <ATen/ops/conv1d.h>
#include <ATen/ops/silu.h>

#include "run/op.h"

namespace espalier {
namespace {

std::vector<at::Tensor> causal_conv(const RunView& v) {
  const at::Tensor &x = v.in(0), &w = v.in(1);
  if (x.dim() != 3 || w.dim() != 3) v.fail("the input and the weight have rank 3");
  const std::int64_t channels = x.size(1), behind = w.size(2) - 1;
  if (w.size(0) != channels || w.size(1) != 1 || behind < 0) v.fail("the weight is not [channels, 1, k]");
  const std::string activation = v.node.text("activation", "none");
  if (activation != "none" && activation != "silu" && activation != "swish") v.fail("activation is '" + activation + "'");
  const at::Tensor past = v.has(3) ? v.in(3) : x.new_zeros({x.size(0), channels, behind});
  if (past.sizes() != at::IntArrayRef({x.size(0), channels, behind})) v.fail("past_state is not [batch, channels, k - 1]");
  const at::Tensor all = at::cat({past, x}, 2);
  std::optional<at::Tensor> bias;
  if (v.has(2)) bias = v.in(2);
  const std::vector<std::int64_t> one{1}, none{0};
  const at::Tensor y = at::conv1d(all, w, bias, one, none, one, channels);
  return {activation == "none" ? y : at::silu(y), all.narrow(2, x.size(2), behind)};
}

const RegisterRun entry{"", "CausalConvWithState", causal_conv};

}  // namespace
}  // namespace espalier
