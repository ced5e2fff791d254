#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

std::vector<std::size_t> slots(const NodeView& view) {
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < view.node.inputs.size(); ++i) out.push_back(i);
  if (out.empty()) view.fail("the node has no inputs");
  return out;
}

std::vector<ValueInfo> infer_concat(const NodeView& view) {
  const auto inputs = slots(view);
  same_types(view, inputs);
  Shape out = view.in(0).shape;
  const std::size_t axis = view.axis("axis", 1, out.size());
  Content content = view.in(0).content;
  for (std::size_t slot = 1; slot < inputs.size(); ++slot) {
    const ValueInfo& next = view.in(slot);
    check_rank(view, slot, out.size());
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (i == axis) {
        out[i] = out[i] + next.shape[i];
      } else {
        check_equal(view, out[i], next.shape[i], "axis " + std::to_string(i) + " of the parts differs");
        if (next.shape[i].known()) out[i] = next.shape[i];
      }
    }
    if (content && next.content)
      content->insert(content->end(), next.content->begin(), next.content->end());
    else
      content.reset();
  }
  return {value(view.in(0).dtype, std::move(out), std::move(content))};
}

void axes_concat(const NodeView& view, AxisMaps& maps) {
  const std::size_t rank = view.out(0).shape.size(), axis = view.axis("axis", 1, rank);
  std::int64_t begin = 0;
  bool known = true;
  for (std::size_t slot : slots(view)) known = known && view.in(slot).shape[axis].known();
  if (!known) maps.pin(AxisMaps::out(0, axis), "concatenation of symbolic lengths");
  for (std::size_t slot : slots(view)) {
    const Shape& in = view.in(slot).shape;
    for (std::size_t i = 0; i < rank; ++i)
      if (i != axis) maps.same(AxisMaps::in(slot, i), AxisMaps::out(0, i));
    if (known) {
      maps.range(AxisMaps::in(slot, axis), 0, AxisMaps::out(0, axis), begin, in[axis].value());
      begin += in[axis].value();
    } else {
      maps.pin(AxisMaps::in(slot, axis), "concatenation of symbolic lengths");
    }
  }
}

const RegisterOperator concat{{"Concat", "", 1, infer_concat, axes_concat, nullptr, nullptr, true}};

}  // namespace
}  // namespace espalier
