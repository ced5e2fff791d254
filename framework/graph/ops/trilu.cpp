/// Trilu and EyeLike: which side of a diagonal, by positions in a matrix.
#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

std::vector<ValueInfo> infer_trilu(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  if (x.shape.size() < 2) view.fail("input 0 has shape " + text(x.shape) + ", matrices are needed");
  if (x.dtype == DType::string) view.refuse("a triangle of strings");
  if (view.has(1)) {
    if (const auto n = element_count(view.in(1).shape); n && *n != 1) view.fail("the diagonal is no one number");
    if (const DType type = view.in(1).dtype; type != DType::i64 && type != DType::undefined)
      view.fail("the diagonal is of type " + std::string(to_string(type)));
  }
  return {value(x.dtype, x.shape)};
}

void axes_trilu(const NodeView& view, AxisMaps& maps) {
  const std::size_t rank = view.in(0).shape.size();
  link_all(view, maps, 0);
  for (std::size_t i = rank - 2; i < rank; ++i) maps.pin(AxisMaps::in(0, i), "positions against a diagonal");
  pin_input(view, maps, 1, "the diagonal of a Trilu");
}

std::vector<ValueInfo> infer_eye(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  check_rank(view, 0, 2);
  DType type = x.dtype;
  if (view.node.has("dtype")) {
    const std::int64_t stated = view.node.integer("dtype", 0);
    if (stated < 1 || stated > kLastType) view.fail("dtype is " + std::to_string(stated));
    type = static_cast<DType>(stated);
  }
  const bool plain = is_floating(type) ? bits(type) >= 16 : bits(type) >= 8 && type != DType::c64 && type != DType::c128;
  if (!plain && type != DType::undefined) view.refuse("a matrix of type " + std::string(to_string(type)));
  return {value(type, x.shape)};
}

const RegisterOperator trilu{{"Trilu", "", 14, infer_trilu, axes_trilu, nullptr, nullptr, true}};
const RegisterOperator eye{{"EyeLike", "", 9, infer_eye, nullptr, nullptr, nullptr, false}};

}  // namespace
}  // namespace espalier
