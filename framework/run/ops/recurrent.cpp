#include "graph/ops/recurrent.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/elu.h>
#include <ATen/ops/leaky_relu.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/where.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "run/op.h"

namespace espalier {
namespace {

using ops::Activation;
using ops::Recurrent;
using Slots = ops::RecurrentSlots;
using Results = std::vector<at::Tensor>;

at::Tensor apply(const Activation& f, const at::Tensor& x) {
  switch (f.kind) {
    case Activation::relu:
      return at::relu(x);
    case Activation::tanh:
      return at::tanh(x);
    case Activation::sigmoid:
      return at::sigmoid(x);
    case Activation::affine:
      return x * f.alpha + f.beta;
    case Activation::leaky_relu:
      return at::leaky_relu(x, f.alpha);
    case Activation::thresholded_relu:
      return at::where(x.ge(f.alpha), x, 0.0);
    case Activation::scaled_tanh:
      return at::tanh(x * f.beta) * f.alpha;
    case Activation::hard_sigmoid:
      return at::clamp(x * f.alpha + f.beta, 0, 1);
    case Activation::elu:
      return at::elu(x, f.alpha);
    case Activation::softsign:
      return x / (x.abs() + 1);
    case Activation::softplus:
      return at::softplus(x);
  }
  return x;
}

/// The hidden state and an LSTM's cell, [batch, hidden].
struct State {
  at::Tensor h, c;
};

/// What one direction computes with: the product of the inputs is made for all steps at once, that of the state at each.
class Direction {
 public:
  Direction(const RunView& v, const Recurrent& form, std::int64_t number)
      : form_(form),
        functions_(form.activations[static_cast<std::size_t>(number)]),
        hidden_(v.in(Slots::r).size(2)),
        r_(v.in(Slots::r).select(0, number).t()) {
    const at::Tensor& x = v.in(Slots::x);
    x_ = at::matmul(form.batch_first ? x.transpose(0, 1) : x, v.in(Slots::w).select(0, number).t());
    if (v.has(Slots::b)) {
      const auto halves = v.in(Slots::b).select(0, number).chunk(2);
      at::Tensor with_state = halves[1];
      if (form.linear_before_reset) {  // the last block's bias comes before the reset gate
        reset_bias_ = with_state.narrow(0, 2 * hidden_, hidden_);
        with_state = at::constant_pad_nd(with_state.narrow(0, 0, 2 * hidden_), {0, hidden_});
      }
      x_ = x_ + (halves[0] + with_state);
    }
    if (form.gates == 4 && v.has(Slots::p)) peepholes_ = v.in(Slots::p).select(0, number).chunk(3);
  }

  std::int64_t steps() const { return x_.size(0); }
  State step(std::int64_t t, const State& before) const {
    const at::Tensor x = x_.select(0, t);
    if (form_.gates == 4) return lstm(x, before);
    if (form_.gates == 3) return {gru(x, before.h), {}};
    return {activate(0, at::addmm(x, before.h, r_)), {}};
  }

 private:
  at::Tensor activate(std::size_t number, const at::Tensor& x) const {
    return apply(functions_[number], form_.clip > 0 ? at::clamp(x, -form_.clip, form_.clip) : x);
  }

  /// Blocks in the order input, output, forget, cell; peepholes input, output, forget.
  State lstm(const at::Tensor& x, const State& before) const {
    const auto gates = at::addmm(x, before.h, r_).chunk(4, 1);
    const auto looking = [&](std::size_t gate, const at::Tensor& cell) {
      return peepholes_.empty() ? gates[gate] : gates[gate] + peepholes_[gate] * cell;
    };
    const at::Tensor in = activate(0, looking(0, before.c));
    const at::Tensor forget = form_.coupled ? 1 - in : activate(0, looking(2, before.c));
    const at::Tensor cell = forget * before.c + in * activate(1, gates[3]);
    return {activate(0, looking(1, cell)) * activate(2, cell), cell};
  }

  /// Blocks in the order update, reset, hidden.
  at::Tensor gru(const at::Tensor& x, const at::Tensor& before) const {
    const at::Tensor of_gates = r_.narrow(1, 0, 2 * hidden_), of_hidden = r_.narrow(1, 2 * hidden_, hidden_);
    const auto both = activate(0, at::addmm(x.narrow(1, 0, 2 * hidden_), before, of_gates)).chunk(2, 1);
    const at::Tensor &update = both[0], &reset = both[1], own = x.narrow(1, 2 * hidden_, hidden_);
    at::Tensor fresh;
    if (form_.linear_before_reset) {
      const at::Tensor read = at::mm(before, of_hidden);
      fresh = own + reset * (reset_bias_.defined() ? read + reset_bias_ : read);
    } else {
      fresh = at::addmm(own, reset * before, of_hidden);
    }
    return (1 - update) * activate(1, fresh) + update * before;
  }

  const Recurrent& form_;
  const std::vector<Activation>& functions_;
  std::int64_t hidden_;
  at::Tensor r_, x_, reset_bias_;
  std::vector<at::Tensor> peepholes_;
};

void check(const RunView& v, std::size_t slot, const std::vector<std::int64_t>& shape, const char* what) {
  if (v.has(slot) && v.in(slot).sizes() != at::IntArrayRef(shape))
    v.fail(fmt::format("{} has shape [{}], expected [{}]", what, fmt::join(v.in(slot).sizes(), ", "), fmt::join(shape, ", ")));
}

struct Sizes {
  std::int64_t steps, batch, hidden;
};

Sizes check_sizes(const RunView& v, const Recurrent& form) {
  for (std::size_t slot : {Slots::x, Slots::w, Slots::r})
    if (v.in(slot).dim() != 3) v.fail(fmt::format("input {} has rank {}, expected 3", slot, v.in(slot).dim()));
  const at::Tensor& x = v.in(Slots::x);
  const Sizes s{x.size(form.batch_first ? 1 : 0), x.size(form.batch_first ? 0 : 1), v.in(Slots::r).size(2)};
  if (v.node.integer("hidden_size", s.hidden) != s.hidden) v.fail("hidden_size does not fit R");
  const std::int64_t gates = form.gates * s.hidden, d = form.directions;
  const std::vector<std::int64_t> state = form.batch_first ? std::vector{s.batch, d, s.hidden} : std::vector{d, s.batch, s.hidden};
  check(v, Slots::w, {d, gates, x.size(2)}, "W");
  check(v, Slots::r, {d, gates, s.hidden}, "R");
  check(v, Slots::b, {d, 2 * gates}, "B");
  check(v, Slots::lengths, {s.batch}, "sequence_lens");
  check(v, Slots::h, state, "initial_h");
  if (form.gates == 4) {
    check(v, Slots::c, state, "initial_c");
    check(v, Slots::p, {d, 3 * s.hidden}, "P");
  }
  if (s.steps == 0) v.refuse("a sequence without steps is not supported");
  return s;
}

/// [batch, 1], or nothing when all sequences have all steps.
at::Tensor lengths_of(const RunView& v, const Sizes& s) {
  if (!v.has(Slots::lengths)) return {};
  const at::Tensor lengths = v.in(Slots::lengths).to(at::kLong);
  if (s.batch == 0 || lengths.eq(s.steps).all().item<bool>()) return {};
  if (lengths.lt(0).logical_or(lengths.gt(s.steps)).any().item<bool>())
    v.fail(fmt::format("sequence_lens are not between 0 and {} steps", s.steps));
  if (lengths.eq(0).any().item<bool>()) v.refuse("sequences of length 0 are not supported");
  return lengths.unsqueeze(1);
}

at::Tensor start(const RunView& v, const Recurrent& form, const Sizes& s, std::size_t slot, std::int64_t direction) {
  if (!v.has(slot)) return v.in(Slots::x).new_zeros({s.batch, s.hidden});
  return v.in(slot).select(form.batch_first ? 1 : 0, direction);
}

/// Step by step. Behind the end of a shorter sequence the state stays and the output is zero; a layer that runs from the end so
/// begins at each sequence's own.
Results recurrent(const RunView& v) {
  const Recurrent form(v.node);
  const Sizes s = check_sizes(v, form);
  const at::Tensor lengths = lengths_of(v, s);
  Results outputs, hidden, cells;
  for (std::int64_t d = 0; d < form.directions; ++d) {
    const Direction direction(v, form, d);
    const bool reverse = form.reverse || d == 1;
    State state{start(v, form, s, Slots::h, d), form.gates == 4 ? start(v, form, s, Slots::c, d) : at::Tensor()};
    Results each(static_cast<std::size_t>(s.steps));
    for (std::int64_t i = 0; i < s.steps; ++i) {
      const std::int64_t t = reverse ? s.steps - 1 - i : i;
      State next = direction.step(t, state);
      at::Tensor& y = each[static_cast<std::size_t>(t)] = next.h;
      if (lengths.defined()) {
        const at::Tensor running = lengths.gt(t);
        y = at::where(running, next.h, 0.0);
        next.h = at::where(running, next.h, state.h);
        if (next.c.defined()) next.c = at::where(running, next.c, state.c);
      }
      state = std::move(next);
    }
    outputs.push_back(at::stack(each, form.batch_first ? 1 : 0));
    hidden.push_back(state.h);
    cells.push_back(state.c);
  }
  const std::int64_t states = form.batch_first ? 1 : 0;
  Results result{at::stack(outputs, form.batch_first ? 2 : 1), at::stack(hidden, states)};
  if (form.gates == 4) result.push_back(at::stack(cells, states));
  return result;
}

const RegisterRun entries[] = {{"", "LSTM", recurrent}, {"", "GRU", recurrent}, {"", "RNN", recurrent}};

}  // namespace
}  // namespace espalier
