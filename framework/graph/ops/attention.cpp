/// Scaled dot-product attention (opset 23; nonpad_kv_seqlen from 24, windows from 25): Q, K, V, attn_mask, past_key, past_value,
/// nonpad_kv_seqlen → Y, present_key, present_value, scores. Q, K, V are [batch, length, heads·size] with the numbers of heads as
/// attributes, or [batch, heads, length, size].
#include <cmath>

#include "graph/ops/heads.h"
#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

struct Heads {
  bool packed;                       ///< rank 3
  Dim batch, queries, keys, past;    ///< lengths
  std::int64_t q, kv, size, v_size;  ///< heads, and the size of one in Q and K, in V
};

Heads heads(const NodeView& view) {
  const Shape &q = view.in(0).shape, &k = view.in(1).shape, &v = view.in(2).shape;
  if (q.size() != 3 && q.size() != 4) view.fail("Q has shape " + text(q) + ", rank 3 or 4 is needed");
  check_rank(view, 1, q.size());
  check_rank(view, 2, q.size());
  Heads h{q.size() == 3, q[0], 0, 0, 0, 0, 0, 0, 0};
  std::int64_t v_heads;
  if (h.packed) {
    h.queries = q[1];
    h.keys = k[1];
    h.q = view.node.integer("q_num_heads", 0);
    h.kv = v_heads = view.node.integer("kv_num_heads", 0);
    if (h.q < 1 || h.kv < 1) view.fail("q_num_heads and kv_num_heads are needed for inputs of rank 3");
    h.size = head_share(view, q[2], h.q, "the width of Q");
    if (head_share(view, k[2], h.kv, "the width of K") != h.size) view.fail("the heads of Q and K differ in size");
    h.v_size = head_share(view, v[2], h.kv, "the width of V");
  } else {
    h.queries = q[2];
    h.keys = k[2];
    h.q = positive(view, q[1], "the number of Q's heads");
    h.kv = positive(view, k[1], "the number of K's heads");
    v_heads = positive(view, v[1], "the number of V's heads");
    h.size = positive(view, q[3], "the head size of Q");
    if (positive(view, k[3], "the head size of K") != h.size) view.fail("the heads of Q and K differ in size");
    h.v_size = positive(view, v[3], "the head size of V");
  }
  if (v_heads != h.kv) view.fail("K and V have different numbers of heads");
  if (h.q % h.kv != 0)
    view.fail(std::to_string(h.q) + " query heads do not divide among " + std::to_string(h.kv) + " key and value heads");
  check_equal(view, h.keys, v[h.packed ? 1 : 2], "the lengths of K and V");
  if (view.has(4) != view.has(5)) view.fail("past_key and past_value come together");
  for (std::size_t slot = 4; slot < 6; ++slot) {
    if (!view.has(slot)) continue;
    check_rank(view, slot, 4);
    const Shape& past = view.in(slot).shape;
    check_equal(view, past[0], h.batch, "the batch of the past");
    check_equal(view, past[1], h.kv, "heads of the past");
    check_equal(view, past[3], slot == 4 ? h.size : h.v_size, "head size of the past");
    h.past = past[2];
  }
  return h;
}

std::vector<ValueInfo> infer_attention(const NodeView& view) {
  same_types(view, {0, 1});
  const Heads h = heads(view);
  const Dim total = h.past + h.keys;
  if (view.has(3)) {
    const Shape& mask = view.in(3).shape;
    const Shape scores{h.batch, h.q, h.queries, total};
    if (mask.empty() || mask.size() > 4) view.fail("attn_mask has shape " + text(mask) + ", rank 1 to 4 is needed");
    for (std::size_t i = 0; i < mask.size(); ++i)
      if (mask[i] != Dim(1) && i + 1 < mask.size())
        check_equal(view, mask[i], scores[i + 4 - mask.size()], "axis " + std::to_string(i) + " of attn_mask");
    if (mask.back().known() && total.known() && mask.back() != Dim(1) && mask.back().value() > total.value())
      view.fail("attn_mask of shape " + text(mask) + " is longer than " + total.text() + " keys");
  }
  if (view.has(6)) {
    check_rank(view, 6, 1);
    check_equal(view, view.in(6).shape[0], h.batch, "nonpad_kv_seqlen against the batch");
  }
  for (const char* side : {"left_window_size", "right_window_size"})
    if (view.node.integer(side, -1) < -1) view.fail(std::string(side) + " is " + std::to_string(view.node.integer(side, -1)));
  const DType type = view.in(0).dtype, v_type = view.in(2).dtype;
  Shape y = h.packed ? Shape{h.batch, h.queries, Dim(h.q) * h.v_size} : Shape{h.batch, h.q, h.queries, h.v_size};
  return {value(type, std::move(y)), value(view.in(1).dtype, {h.batch, h.kv, total, h.size}),
          value(v_type, {h.batch, h.kv, total, h.v_size}), value(type, {h.batch, h.q, h.queries, total})};
}

/// One key and value head goes with its group of query heads and their outputs; in the packed form whole heads only.
void axes_attention(const NodeView& view, AxisMaps& maps) {
  const Heads h = heads(view);
  const std::int64_t group = h.q / h.kv;
  const std::size_t axis = h.packed ? 2 : 1;
  const std::int64_t size = h.packed ? h.size : 1, v_size = h.packed ? h.v_size : 1;
  const auto key = AxisMaps::in(1, axis);
  maps.blocks(key, size, AxisMaps::in(2, axis), v_size);
  maps.blocks(key, size, AxisMaps::in(0, axis), group * size);
  maps.blocks(key, size, AxisMaps::out(0, axis), group * v_size);

  const char* fixed = "batch and positions of an attention";
  for (std::size_t slot = 0; slot < 3; ++slot)
    for (std::size_t a : {std::size_t{0}, h.packed ? std::size_t{1} : std::size_t{2}}) maps.pin(AxisMaps::in(slot, a), fixed);
  for (std::size_t a : {std::size_t{0}, h.packed ? std::size_t{1} : std::size_t{2}}) maps.pin(AxisMaps::out(0, a), fixed);
  auto cache = [&](AxisMaps::Port (*port)(std::size_t, std::size_t), std::size_t slot) {
    maps.blocks(key, size, port(slot, 1), 1);
    for (std::size_t a : {0u, 2u}) maps.pin(port(slot, a), fixed);
    if (h.packed) maps.pin(port(slot, 3), "the size of a head");
  };
  for (std::size_t slot : {4u, 5u})
    if (view.has(slot)) cache(AxisMaps::in, slot);
  for (std::size_t slot : {1u, 2u})
    if (!view.node.output(slot).empty()) cache(AxisMaps::out, slot);
  if (!view.node.output(3).empty()) {
    maps.blocks(key, size, AxisMaps::out(3, 1), group);
    for (std::size_t a : {0u, 2u, 3u}) maps.pin(AxisMaps::out(3, a), fixed);
  }
  if (view.has(3)) {
    const Shape& mask = view.in(3).shape;
    for (std::size_t i = 0; i < mask.size(); ++i) {
      const bool per_head = i + 4 - mask.size() == 1 && mask[i] != Dim(1);
      if (per_head)
        maps.blocks(key, size, AxisMaps::in(3, i), group);
      else
        maps.pin(AxisMaps::in(3, i), fixed);
    }
  }
  if (h.packed) return;
  maps.reduce(AxisMaps::in(0, 3), AxisMaps::in(1, 3));
  maps.same(AxisMaps::in(2, 3), AxisMaps::out(0, 3));
  maps.whole(AxisMaps::in(0, 3), true, "the scale of the attention is written down");
  for (std::size_t slot : {0u, 1u}) {
    const std::size_t size_source = slot == 0 ? 1u : 2u;
    if (view.has(4 + slot)) maps.same(AxisMaps::in(size_source, 3), AxisMaps::in(4 + slot, 3));
    if (!view.node.output(1 + slot).empty()) maps.same(AxisMaps::in(size_source, 3), AxisMaps::out(1 + slot, 3));
  }
}

double macs_attention(const NodeView& view, const Bindings& bindings) {
  const Heads h = heads(view);
  const double scores = elements({h.batch, h.q, h.queries, h.past + h.keys}, bindings);
  return scores * static_cast<double>(h.size + h.v_size);
}

void adjust_attention(Adjust& adjust) {
  const NodeView view{adjust.graph, adjust.node, adjust.before};
  const Heads h = heads(view);
  const std::size_t axis = h.packed ? 2 : 1;
  const std::int64_t size = h.packed ? h.size : 1;
  if (!h.packed && adjust.kept(adjust.node.input(0), 3) && !adjust.node.has("scale"))
    adjust.node.attributes["scale"] = 1.0 / std::sqrt(static_cast<double>(h.size));
  const std::int64_t q = heads_left(adjust, 0, axis, size, h.q), kv = heads_left(adjust, 1, axis, size, h.kv);
  // With inputs of rank 4 the numbers may be there, and say nothing.
  if (h.packed || adjust.node.has("q_num_heads")) adjust.node.attributes["q_num_heads"] = q;
  if (h.packed || adjust.node.has("kv_num_heads")) adjust.node.attributes["kv_num_heads"] = kv;
}

const RegisterOperator attention{
    {"Attention", "", 23, infer_attention, axes_attention, macs_attention, adjust_attention, true, {3}}};

}  // namespace
}  // namespace espalier
