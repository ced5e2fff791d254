#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

/// Copies along each axis; nothing where only running tells. Before opset 6 one axis, by two scalars.
std::vector<std::optional<Dim>> copies(const NodeView& view) {
  const std::size_t rank = view.in(0).shape.size();
  std::vector<std::optional<Dim>> out(rank);
  if (view.graph.opset() < 6) {
    const auto count = view.integers(1), axis = view.integers(2);
    if (!count || !axis) return out;
    if (count->size() != 1 || axis->size() != 1) view.fail("tiles and axis are no single numbers");
    out.assign(rank, Dim(1));
    out[normalized(view, *axis, rank)[0]] = Dim((*count)[0]);
  } else {
    check_rank(view, 1, 1);
    check_equal(view, view.in(1).shape[0], static_cast<std::int64_t>(rank), "the number of repeats and the rank differ");
    const Content repeats = view.in(1).content;
    for (std::size_t i = 0; repeats && i < rank; ++i) out[i] = (*repeats)[i];
  }
  for (const auto& n : out)
    if (n && n->known() && n->constant() < 0) view.fail(n->text() + " copies");
  return out;
}

std::vector<ValueInfo> infer_tile(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  Shape out = x.shape;
  const auto repeats = copies(view);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = repeats[i] ? out[i] * *repeats[i] : opaque(view, 0, i);
  return {value(x.dtype, std::move(out))};
}

/// Every copy of an index lives and dies with it.
void axes_tile(const NodeView& view, AxisMaps& maps) {
  constexpr std::int64_t kMostCopies = 64;
  const Shape& in = view.in(0).shape;
  const auto repeats = copies(view);
  for (std::size_t slot = 1; slot < view.node.inputs.size(); ++slot) pin_input(view, maps, slot, "numbers of copies");
  for (std::size_t i = 0; i < in.size(); ++i) {
    const auto a = AxisMaps::in(0, i), b = AxisMaps::out(0, i);
    if (repeats[i] == Dim(1)) {
      maps.same(a, b);
    } else if (repeats[i] && repeats[i]->known() && repeats[i]->constant() <= kMostCopies && in[i].known()) {
      for (std::int64_t k = 0; k < repeats[i]->constant(); ++k) maps.range(a, 0, b, k * in[i].value(), in[i].value());
    } else {
      maps.pin(a, "copied an unknown number of times, or too often");
      maps.pin(b, "copied an unknown number of times, or too often");
    }
  }
}

const RegisterOperator tile{{"Tile", "", 1, infer_tile, axes_tile, nullptr, nullptr, true}};
const RegisterOperator tile_6{{"Tile", "", 6, infer_tile, axes_tile, nullptr, nullptr, true}};

}  // namespace
}  // namespace espalier
