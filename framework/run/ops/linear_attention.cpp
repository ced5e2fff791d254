#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <cmath>

#include "run/op.h"

namespace espalier {
namespace {

using Steps = std::vector<at::Tensor>;

/// [batch, length, heads · size], one tensor a position, each [batch, heads, size].
Steps positions(const RunView& v, std::size_t slot, std::int64_t heads) {
  const at::Tensor& x = v.in(slot);
  if (x.dim() != 3 || heads < 1 || x.size(2) % heads != 0)
    v.fail(fmt::format("input {} is not [batch, length, {} heads]", slot, heads));
  if (x.size(0) != v.in(0).size(0) || x.size(1) != v.in(0).size(1))
    v.fail(fmt::format("input {} and the queries differ in batch or length", slot));
  return x.unflatten(2, {heads, x.size(2) / heads}).unbind(1);
}

/// Position by position. The state S [batch, heads, size, v_size] first decays by exp(g), then takes k ⊗ v; a delta rule writes
/// β·(v - Sᵀk) in the place of v. What is read is qᵀS.
std::vector<at::Tensor> linear_attention(const RunView& v) {
  const std::string rule = v.node.text("update_rule", "gated_delta");
  const bool gated = rule == "gated" || rule == "gated_delta", delta = rule == "delta" || rule == "gated_delta";
  if (!gated && !delta && rule != "linear") v.fail(fmt::format("update_rule is '{}'", rule));
  if (v.has(4) != gated || v.has(5) != delta) v.fail(fmt::format("decay or beta do not go with update_rule '{}'", rule));
  const std::int64_t readers = v.node.integer("q_num_heads", 0), heads = v.node.integer("kv_num_heads", 0);
  if (heads < 1 || readers < 1 || readers % heads != 0)
    v.fail(fmt::format("{} query heads over {} key and value heads", readers, heads));
  const Steps q = positions(v, 0, readers), k = positions(v, 1, heads), values = positions(v, 2, heads);
  const std::int64_t batch = v.in(0).size(0), size = v.in(0).size(2) / readers, wide = v.in(2).size(2) / heads;
  if (v.in(1).size(2) / heads != size) v.fail("the heads of queries and keys differ in size");
  Steps decay, beta;
  if (gated) decay = positions(v, 4, heads);
  if (delta) beta = positions(v, 5, v.in(5).size(-1) == 1 ? 1 : heads);
  if (gated && v.in(4).size(2) != heads && v.in(4).size(2) != heads * size) v.fail("the width of decay does not fit the heads");
  if (delta && v.in(5).size(2) != heads && v.in(5).size(2) != 1) v.fail("the width of beta does not fit the heads");

  at::Tensor state = v.has(3) ? v.in(3) : at::zeros({batch, heads, size, wide}, v.in(0).options());
  if (state.sizes() != at::IntArrayRef({batch, heads, size, wide})) v.fail("past_state does not have the shape of the state");
  if (q.empty()) return {v.in(2).new_zeros({batch, 0, readers * wide}), state};
  const double given = v.node.number("scale", 0), scale = given != 0 ? given : 1 / std::sqrt(static_cast<double>(size));
  Steps read;
  for (std::size_t t = 0; t < q.size(); ++t) {
    if (gated) state = state * decay[t].exp().unsqueeze(-1);
    at::Tensor written = values[t];
    if (delta) written = beta[t] * (written - at::matmul(k[t].unsqueeze(-2), state).squeeze(-2));
    state = state + k[t].unsqueeze(-1) * written.unsqueeze(-2);
    read.push_back(at::matmul(q[t].unflatten(1, {heads, readers / heads}), state));  // [batch, heads, readers of each, wide]
  }
  return {at::stack(read, 1).flatten(2) * scale, state};
}

const RegisterRun entry{"", "LinearAttention", linear_attention};

}  // namespace
}  // namespace espalier
