#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

/// Elements of one block, where they are known.
std::optional<std::int64_t> block_size(const NodeView& view) {
  const auto block = view.integers(2);
  if (!block) return std::nullopt;
  Dim n(1);
  for (std::int64_t length : *block) {
    if (length < 1) view.fail("a block has the length " + std::to_string(length));
    n = n * length;
  }
  return n.value();
}

/// [batch, channels · block, blocks] to [batch, channels, image…].
std::vector<ValueInfo> infer_col2im(const NodeView& view) {
  const ValueInfo &x = view.in(0), &image = view.in(1);
  for (std::size_t slot : {1, 2}) check_rank(view, slot, 1);
  check_rank(view, 0, 3);
  check_equal(view, image.shape[0], view.in(2).shape[0], "the ranks of image and block differ");
  if (!image.shape[0].known()) return {{x.dtype, {}, std::nullopt, false}};
  const std::int64_t spatial = image.shape[0].constant();
  if (spatial < 1 || spatial > 62) view.fail("an image with " + std::to_string(spatial) + " axes");
  Shape out = opaque_shape(view, static_cast<std::size_t>(spatial) + 2);
  out[0] = x.shape[0];
  if (const auto block = block_size(view)) {
    if (x.shape[1].known() && x.shape[1].constant() % *block != 0)
      view.fail(x.shape[1].text() + " channels do not divide into blocks of " + std::to_string(*block));
    out[1] = floor_div(x.shape[1], *block);
  }
  for (std::size_t i = 0; image.content && i < image.content->size(); ++i) {
    out[i + 2] = (*image.content)[i];
    if (out[i + 2].known() && out[i + 2].constant() < 1) view.fail("the image has the length " + out[i + 2].text());
  }
  return {value(x.dtype, std::move(out))};
}

void axes_col2im(const NodeView& view, AxisMaps& maps) {
  const auto block = block_size(view);
  maps.same(AxisMaps::in(0, 0), AxisMaps::out(0, 0));
  for (std::size_t slot : {1, 2}) pin_input(view, maps, slot, "a list of lengths");
  maps.pin(AxisMaps::in(0, 2), "blocks of an image");
  for (std::size_t i = 2; i < view.out(0).shape.size(); ++i) maps.pin(AxisMaps::out(0, i), "made of blocks");
  if (block) {
    maps.blocks(AxisMaps::in(0, 1), *block, AxisMaps::out(0, 1), 1);
    return;
  }
  maps.pin(AxisMaps::in(0, 1), "blocks of an unknown size");
  maps.pin(AxisMaps::out(0, 1), "blocks of an unknown size");
}

const RegisterOperator col2im{{"Col2Im", "", 18, infer_col2im, axes_col2im, nullptr, nullptr, true}};

}  // namespace
}  // namespace espalier
