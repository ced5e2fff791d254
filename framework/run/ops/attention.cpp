#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "run/cache.h"
#include "run/op.h"

namespace espalier {
namespace {

constexpr double minus_infinity = -std::numeric_limits<double>::infinity();

/// The operands as [batch, heads, sequence, size], the past joined.
struct Operands {
  at::Tensor q, k, v;
  std::int64_t past = 0;
  bool flat;  ///< inputs and output are [batch, sequence, heads · size]

  explicit Operands(const RunView& view) : q(view.in(0)), k(view.in(1)), v(view.in(2)), flat(view.in(0).dim() == 3) {
    if ((q.dim() != 3 && q.dim() != 4) || k.dim() != q.dim() || v.dim() != q.dim())
      view.fail("Q, K and V have rank 3 or 4, all the same");
    if (flat) {
      const std::int64_t heads = view.node.integer("q_num_heads", 0), pairs = view.node.integer("kv_num_heads", 0);
      q = split(view, q, heads);
      k = split(view, k, pairs);
      v = split(view, v, pairs);
    }
    if (view.has(4) != view.has(5)) view.fail("past_key and past_value come together");
    if (view.has(4)) {
      past = view.in(4).dim() == 4 ? view.in(4).size(2) : 0;
      k = join(view.in(4), k);
      v = join(view.in(5), v);
    }
    if (k.size(1) < 1 || q.size(1) % k.size(1) != 0 || v.size(1) != k.size(1))
      view.fail(fmt::format("{} query heads over {} key and {} value heads", q.size(1), k.size(1), v.size(1)));
    if (k.size(2) != v.size(2)) view.fail("keys and values differ in length");
  }

 private:
  static at::Tensor split(const RunView& view, const at::Tensor& x, std::int64_t heads) {
    if (heads < 1 || x.size(2) % heads != 0) view.fail(fmt::format("{} heads do not divide a width of {}", heads, x.size(2)));
    return x.unflatten(2, {heads, x.size(2) / heads}).transpose(1, 2);
  }
  static at::Tensor join(const at::Tensor& past, const at::Tensor& fresh) {
    if (at::Tensor grown = GrowingCache::append(past, fresh); grown.defined()) return grown;
    return past.dim() == 4 && past.size(2) == 0 ? fresh : at::cat({past, fresh}, 2);
  }
};

/// Whether a mask lets everything through: asked only where looking is cheap beside the attention itself (one row for all queries).
bool open(const at::Tensor& mask, const at::Tensor& q, const at::Tensor& k) {
  if (mask.size(-1) != k.size(2) || (mask.numel() > 65536 && mask.numel() * 8 > q.numel())) return false;
  return (mask.scalar_type() == at::kBool ? mask : mask.eq(0)).all().item<bool>();
}

/// How far a query sees to one side of its own position; nothing where that is unlimited. No tensor is longer than the limit.
std::optional<std::int64_t> window(const RunView& view, const char* side) {
  const std::int64_t given = view.node.integer(side, -1);
  if (given < -1) view.fail(fmt::format("{} is {}", side, given));
  return given < 0 ? std::nullopt : std::optional(std::min(given, std::int64_t{1} << 40));
}

/// What may be attended: the operator's mask, filled up to the keys' length, as boolean or additive; causal order and windows; the
/// keys in use. Undefined when everything may. `causal` is set instead where that alone limits, and LibTorch's own causal kernel
/// fits.
at::Tensor mask_of(const RunView& view, const Operands& o, bool& causal) {
  const std::int64_t queries = o.q.size(2), keys = o.k.size(2);
  const bool ordered = view.node.integer("is_causal", 0) != 0;
  const auto left = window(view, "left_window_size"), right = ordered ? 0 : window(view, "right_window_size");
  const auto options = at::TensorOptions().dtype(at::kLong);
  at::Tensor mask, allowed;
  if (view.has(3)) {
    mask = view.in(3);
    if (mask.dim() < 1 || mask.dim() > 4 || mask.size(-1) > keys) view.fail("attn_mask does not fit the keys' length");
    const bool boolean = mask.scalar_type() == at::kBool;
    if (!boolean && !mask.is_floating_point())
      view.refuse("an attn_mask of integers is not supported; make it boolean or floating");
    if (mask.size(-1) < keys) mask = at::constant_pad_nd(mask, {0, keys - mask.size(-1)}, boolean ? 0.0 : minus_infinity);
    while (mask.dim() < 4) mask = mask.unsqueeze(0);
    if (!mask.requires_grad() && open(mask, o.q, o.k)) mask.reset();
  }
  std::int64_t before = o.past;  // keys in front of the first query
  at::Tensor frontier;           // one number a batch, where the cache is outside
  if (view.has(6)) {
    if (view.has(4)) view.refuse("nonpad_kv_seqlen does not go with past_key");
    if (view.in(6).numel() != o.q.size(0))
      view.fail(fmt::format("{} lengths of keys for a batch of {}", view.in(6).numel(), o.q.size(0)));
    frontier = view.in(6).to(at::kLong).reshape({-1, 1, 1, 1});
    allowed = at::arange(keys, options).lt(frontier);
  }
  if (ordered && !left && !mask.defined() && !frontier.defined() && before == 0) {
    causal = true;
    return {};
  }
  const bool all_after = !right || (queries == 1 && !frontier.defined() && before + *right + 1 >= keys);
  const bool all_before = !left || (!frontier.defined() && before + queries - 1 <= *left);
  if (!all_after || !all_before) {
    const at::Tensor row = at::arange(queries, options).unsqueeze(1), column = at::arange(keys, options);
    const at::Tensor place = frontier.defined() ? row + (frontier - queries) : (row + before).unsqueeze(0).unsqueeze(0);
    if (!all_after) {
      const at::Tensor reached = column.le(*right == 0 ? place : place + *right);
      allowed = allowed.defined() ? allowed.logical_and(reached) : reached;
    }
    if (!all_before) {
      const at::Tensor reached = column.ge(place - *left);
      allowed = allowed.defined() ? allowed.logical_and(reached) : reached;
    }
  }
  if (!mask.defined() || !allowed.defined()) return mask.defined() ? mask : allowed;
  if (mask.scalar_type() == at::kBool) return mask.logical_and(allowed);
  return at::where(allowed, mask, minus_infinity);
}

/// Query heads that share keys become rows of one head: no key is copied. For masks that do not tell queries apart.
at::Tensor grouped(const Operands& o, const at::Tensor& mask, double scale) {
  const std::int64_t group = o.q.size(1) / o.k.size(1);
  const at::Tensor q = o.q.reshape({o.q.size(0), o.k.size(1), group, o.q.size(3)});
  std::optional<at::Tensor> bias;
  if (mask.defined()) bias = mask;
  return at::scaled_dot_product_attention(q, o.k, o.v, bias, 0.0, false, scale).reshape({o.q.size(0), o.q.size(1), 1, o.v.size(3)});
}

at::Tensor repeated(const at::Tensor& x, std::int64_t times) {
  if (times == 1) return x;
  return x.unsqueeze(2)
      .expand({x.size(0), x.size(1), times, x.size(2), x.size(3)})
      .reshape({x.size(0), x.size(1) * times, x.size(2), x.size(3)});
}

/// Step by step, for soft caps and for callers that look at the scores. qk_matmul_output_mode: 0 scores, 1 after the soft cap, 2
/// with the mask added, 3 after the softmax.
std::vector<at::Tensor> in_steps(const RunView& view, const Operands& o, at::Tensor mask, bool causal, double scale) {
  const std::int64_t mode = view.node.integer("qk_matmul_output_mode", 0);
  const double cap = view.node.number("softcap", 0), root = std::sqrt(scale);
  const std::int64_t times = o.q.size(1) / o.k.size(1);
  at::Tensor scores = at::matmul(o.q * root, repeated(o.k, times).transpose(-1, -2) * root), seen = scores;
  if (cap > 0) scores = at::tanh(scores / cap) * cap;
  if (mode == 1) seen = scores;
  if (causal) {
    const auto options = at::TensorOptions().dtype(at::kLong);
    mask = at::arange(o.k.size(2), options).le(at::arange(o.q.size(2), options).unsqueeze(1));
  }
  at::Tensor shut;  // rows that may attend to nothing give zeros, not NaN
  if (mask.defined()) {
    const bool boolean = mask.scalar_type() == at::kBool;
    shut = (boolean ? mask.logical_not() : mask.eq(minus_infinity)).all(-1, true);
    scores = boolean ? at::where(mask, scores, minus_infinity) : scores + mask;
  }
  if (mode == 2) seen = scores;
  if (shut.defined()) scores = at::where(shut, 0.0, scores);
  at::Tensor weights = at::softmax(scores, -1);
  if (shut.defined()) weights = at::where(shut, 0.0, weights);
  if (mode == 3) seen = weights;
  return {at::matmul(weights, repeated(o.v, times)), seen};
}

std::vector<at::Tensor> attention(const RunView& view) {
  const Operands o(view);
  if (o.q.size(3) != o.k.size(3)) view.fail(fmt::format("queries of size {} and keys of size {}", o.q.size(3), o.k.size(3)));
  const double scale = view.node.number("scale", 1 / std::sqrt(static_cast<double>(o.q.size(3))));
  bool causal = false;
  const at::Tensor mask = mask_of(view, o, causal);

  at::Tensor y, seen;
  if (view.node.number("softcap", 0) > 0 || !view.node.output(3).empty()) {
    auto both = in_steps(view, o, mask, causal, scale);
    y = both[0];
    seen = both[1];
  } else if (o.q.size(2) == 1 && !causal && (!mask.defined() || mask.size(1) == 1)) {
    y = grouped(o, mask, scale);
  } else {
    std::optional<at::Tensor> bias;
    if (mask.defined()) bias = mask;
    y = at::scaled_dot_product_attention(o.q, o.k, o.v, bias, 0.0, causal, scale, o.q.size(1) != o.k.size(1));
  }
  if (o.flat) y = y.transpose(1, 2).flatten(2);
  return {y, o.k, o.v, seen};
}

const RegisterRun entry{"", "Attention", attention};

}  // namespace
}  // namespace espalier
