/// Elements picked by what they are: NonZero, Compress, Unique. Lengths are known when it has run.
#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

Dim elements_of(const Shape& shape) {
  Dim n(1);
  for (const Dim& d : shape) n = n * d;
  return n;
}

std::vector<ValueInfo> infer_non_zero(const NodeView& view) {
  return {value(DType::i64, {static_cast<std::int64_t>(view.in(0).shape.size()), opaque(view, 0, 1)})};
}

std::vector<ValueInfo> infer_compress(const NodeView& view) {
  const ValueInfo &x = view.in(0), &condition = view.in(1);
  check_rank(view, 1, 1);
  if (condition.dtype != DType::boolean && condition.dtype != DType::undefined)
    view.fail("the condition is no boolean but " + std::string(to_string(condition.dtype)));
  if (!view.node.has("axis")) return {value(x.dtype, {opaque(view, 0, 0)})};
  Shape out = x.shape;
  const std::size_t axis = view.axis("axis", 0, out.size());
  out[axis] = opaque(view, 0, axis);
  return {value(x.dtype, std::move(out))};
}

void axes_compress(const NodeView& view, AxisMaps& maps) {
  pin_input(view, maps, 1, "a condition on an axis");
  if (!view.node.has("axis")) {
    pin_input(view, maps, 0, "elements are picked by a condition");
    pin_output(view, maps, 0, "elements are picked by a condition");
    return;
  }
  const std::size_t rank = view.in(0).shape.size(), axis = view.axis("axis", 0, rank);
  for (std::size_t i = 0; i < rank; ++i) {
    if (i != axis) {
      maps.same(AxisMaps::in(0, i), AxisMaps::out(0, i));
      continue;
    }
    maps.pin(AxisMaps::in(0, i), "elements are picked by a condition");
    maps.pin(AxisMaps::out(0, i), "elements are picked by a condition");
  }
}

/// The elements themselves, and for each of them the first place, for each of the input's the number, and how often it occurs.
std::vector<ValueInfo> infer_unique(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  Shape out{opaque(view, 0, 0)};
  Dim count = out[0], all = elements_of(x.shape);
  if (view.node.has("axis")) {
    const std::size_t axis = view.axis("axis", 0, x.shape.size());
    out = x.shape;
    all = out[axis];
    count = out[axis] = opaque(view, 0, axis);
  }
  return {value(x.dtype, std::move(out)), value(DType::i64, {count}), value(DType::i64, {all}), value(DType::i64, {count})};
}

const RegisterOperator non_zero{{"NonZero", "", 9, infer_non_zero, nullptr, nullptr, nullptr, false}};
const RegisterOperator compress{{"Compress", "", 9, infer_compress, axes_compress, nullptr, nullptr, true}};
const RegisterOperator unique{{"Unique", "", 11, infer_unique, nullptr, nullptr, nullptr, false}};

}  // namespace
}  // namespace espalier
