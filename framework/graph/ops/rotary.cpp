/// Rotary position embedding (opset 23; Su et al., "RoFormer", 2021). X [batch, length, heads·size] with num_heads, or [batch,
/// heads, length, size]; cos and sin caches [positions, size/2] with position_ids, or [batch, length, size/2] without.
#include "graph/ops/heads.h"
#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

std::int64_t head_size(const NodeView& view) {
  const Shape& x = view.in(0).shape;
  if (x.size() == 4) {
    if (!x[3].known()) view.fail("the size of a head is not known");
    return x[3].value();
  }
  check_rank(view, 0, 3);
  const std::int64_t heads = view.node.integer("num_heads", 0);
  if (heads < 1) view.fail("num_heads is needed for an input of rank 3");
  return head_share(view, x[2], heads, "the width");
}

std::vector<ValueInfo> infer_rotary(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  const std::int64_t size = head_size(view), given = view.node.integer("rotary_embedding_dim", 0),
                     rotated = given == 0 ? size : given;
  if (rotated < 2 || rotated > size || rotated % 2 != 0)
    view.fail(std::to_string(rotated) + " rotated channels in a head of " + std::to_string(size));
  for (std::size_t slot : {1u, 2u}) {
    check_rank(view, slot, view.has(3) ? 2 : 3);
    check_equal(view, view.in(slot).shape.back(), rotated / 2, slot == 1 ? "the cosines" : "the sines");
  }
  if (view.has(3)) check_rank(view, 3, 2);
  same_types(view, {0, 1, 2});
  return {value(x.dtype, x.shape)};
}

void axes_rotary(const NodeView& view, AxisMaps& maps) {
  const bool packed = view.in(0).shape.size() == 3;
  link_all(view, maps, 0);
  for (std::size_t a : {std::size_t{0}, packed ? std::size_t{1} : std::size_t{2}})
    maps.pin(AxisMaps::in(0, a), "batch and positions of an attention");
  if (packed)
    maps.bundle(AxisMaps::in(0, 2), head_size(view));
  else
    maps.pin(AxisMaps::in(0, 3), "rotary pairs");
  for (std::size_t slot = 1; slot < 4; ++slot) pin_input(view, maps, slot, "tables and positions of a rotary embedding");
}

void adjust_rotary(Adjust& adjust) {
  const NodeView view{adjust.graph, adjust.node, adjust.before};
  if (view.in(0).shape.size() == 4) return;
  if (!adjust.kept(adjust.node.input(0), 2)) return;
  adjust.node.attributes["num_heads"] = heads_left(adjust, 0, 2, head_size(view), view.node.integer("num_heads", 0));
}

const RegisterOperator rotary{{"RotaryEmbedding", "", 23, infer_rotary, axes_rotary, nullptr, adjust_rotary, true, {1, 2}}};

}  // namespace
}  // namespace espalier
