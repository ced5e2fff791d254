/// Attention without a softmax (opset 27): a matrix of state per key and value head is read by queries and written by keys and
/// values, position by position. query [batch, length, q_num_heads·size], key [batch, length, kv_num_heads·size], value [batch,
/// length, kv_num_heads·v_size], past_state [batch, kv_num_heads, size, v_size], decay, beta → output, present_state. Rules: linear
/// (Katharopoulos et al., 2020), gated (Yang et al., "GLA", 2024), delta (Schlag et al., 2021), gated_delta (Yang et al., 2025).
#include "graph/ops/heads.h"
#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

struct Form {
  Dim batch, length;
  std::int64_t q, kv, size, v_size;  ///< heads, and the size of one in queries and keys, in values
};

/// An input that the rule asks for must be there, another must not.
void check_given(const NodeView& view, std::size_t slot, bool needed, const char* what) {
  if (view.has(slot) != needed)
    view.fail(std::string(what) + (needed ? " is needed by" : " does not go with") + " update_rule '" +
              view.node.text("update_rule", "gated_delta") + "'");
}

/// decay and beta: [batch, length, one of two widths].
void check_gate(const NodeView& view, std::size_t slot, const Form& f, const Dim& narrow, const Dim& wide, const char* what) {
  check_rank(view, slot, 3);
  const Shape& shape = view.in(slot).shape;
  check_equal(view, shape[0], f.batch, std::string("the batch of ") + what);
  check_equal(view, shape[1], f.length, std::string("the length of ") + what);
  if (shape[2] != narrow) check_equal(view, shape[2], wide, std::string("the width of ") + what);
}

Form form(const NodeView& view) {
  const std::string rule = view.node.text("update_rule", "gated_delta");
  const bool gated = rule == "gated" || rule == "gated_delta", delta = rule == "delta" || rule == "gated_delta";
  if (!gated && !delta && rule != "linear") view.fail("update_rule is '" + rule + "'");
  for (std::size_t slot = 0; slot < 3; ++slot) check_rank(view, slot, 3);
  const Shape &q = view.in(0).shape, &k = view.in(1).shape, &v = view.in(2).shape;
  Form f{q[0], q[1], view.node.integer("q_num_heads", 0), view.node.integer("kv_num_heads", 0), 0, 0};
  if (f.q < 1 || f.kv < 1) view.fail("q_num_heads and kv_num_heads are needed");
  if (f.q % f.kv != 0)
    view.fail(std::to_string(f.q) + " query heads do not divide among " + std::to_string(f.kv) + " key and value heads");
  f.size = head_share(view, q[2], f.q, "the width of the queries");
  if (head_share(view, k[2], f.kv, "the width of the keys") != f.size) view.fail("the heads of queries and keys differ in size");
  f.v_size = head_share(view, v[2], f.kv, "the width of the values");
  for (std::size_t axis = 0; axis < 2; ++axis) {
    check_equal(view, k[axis], q[axis], "keys against queries");
    check_equal(view, v[axis], q[axis], "values against queries");
  }
  if (view.has(3)) {
    check_rank(view, 3, 4);
    const Shape &past = view.in(3).shape, wanted{f.batch, f.kv, f.size, f.v_size};
    for (std::size_t i = 0; i < 4; ++i) check_equal(view, past[i], wanted[i], "axis " + std::to_string(i) + " of past_state");
  }
  check_given(view, 4, gated, "decay");
  check_given(view, 5, delta, "beta");
  if (gated) check_gate(view, 4, f, f.kv, f.kv * f.size, "decay");
  if (delta) check_gate(view, 5, f, 1, f.kv, "beta");
  return f;
}

std::vector<ValueInfo> infer_linear_attention(const NodeView& view) {
  const Form f = form(view);
  const DType type = view.in(0).dtype;
  return {value(type, {f.batch, f.length, Dim(f.q) * f.v_size}),
          value(view.has(3) ? view.in(3).dtype : type, {f.batch, f.kv, f.size, f.v_size})};
}

/// One key and value head goes with its group of query heads, its gates, its state, and its outputs.
void axes_linear_attention(const NodeView& view, AxisMaps& maps) {
  const Form f = form(view);
  const std::int64_t group = f.q / f.kv;
  const auto key = AxisMaps::in(1, 2);
  maps.blocks(key, f.size, AxisMaps::in(0, 2), group * f.size);
  maps.blocks(key, f.size, AxisMaps::in(2, 2), f.v_size);
  maps.blocks(key, f.size, AxisMaps::out(0, 2), group * f.v_size);
  maps.blocks(AxisMaps::in(2, 2), f.v_size, AxisMaps::out(0, 2), group * f.v_size);
  const char* fixed = "batch and positions of an attention";
  for (std::size_t slot : {0u, 1u, 2u, 4u, 5u})
    for (std::size_t axis = 0; axis < 2 && view.has(slot); ++axis) maps.pin(AxisMaps::in(slot, axis), fixed);
  for (std::size_t axis = 0; axis < 2; ++axis) maps.pin(AxisMaps::out(0, axis), fixed);
  if (view.has(4)) maps.blocks(key, f.size, AxisMaps::in(4, 2), view.in(4).shape[2] == Dim(f.kv) ? 1 : f.size);
  if (view.has(5) && view.in(5).shape[2] != Dim(1)) maps.blocks(key, f.size, AxisMaps::in(5, 2), 1);
  const auto state = [&](AxisMaps::Port (*port)(std::size_t, std::size_t), std::size_t slot) {
    maps.blocks(key, f.size, port(slot, 1), 1);
    maps.pin(port(slot, 0), fixed);
    for (std::size_t axis : {2u, 3u}) maps.pin(port(slot, axis), "the size of a head");
  };
  if (!view.node.output(1).empty()) state(AxisMaps::out, 1);
  if (!view.has(3)) return;
  state(AxisMaps::in, 3);
  maps.blocks(AxisMaps::in(3, 1), 1, AxisMaps::out(0, 2), group * f.v_size);
  maps.same(AxisMaps::in(3, 1), AxisMaps::out(1, 1));
}

/// Writing and reading the state, and what a delta rule reads of it beforehand.
double macs_linear_attention(const NodeView& view, const Bindings& bindings) {
  const Form f = form(view);
  const double state = elements({f.batch, f.length, f.size, f.v_size}, bindings);
  return state * static_cast<double>(f.q + f.kv * (view.has(5) ? 2 : 1));
}

void adjust_linear_attention(Adjust& adjust) {
  const Form f = form(NodeView{adjust.graph, adjust.node, adjust.before});
  const std::int64_t q = heads_left(adjust, 0, 2, f.size, f.q), kv = heads_left(adjust, 1, 2, f.size, f.kv);
  adjust.node.attributes["q_num_heads"] = q;
  adjust.node.attributes["kv_num_heads"] = kv;
}

const RegisterOperator linear_attention{{"LinearAttention", "", 27, infer_linear_attention, axes_linear_attention,
                                         macs_linear_attention, adjust_linear_attention, true}};

}  // namespace
}  // namespace espalier
