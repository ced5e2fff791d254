/// DequantizeLinear, QuantizeLinear and DynamicQuantizeLinear: one scale, one per index of `axis`, or (opset 21) one per block of
/// `block_size` on it.
#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

enum class Grain { tensor, channel, block };

struct Scales {
  Grain grain;
  std::size_t axis;
  std::int64_t block;
};

Scales scales(const NodeView& view) {
  const Shape &x = view.in(0).shape, &scale = view.in(1).shape;
  const std::int64_t block = view.node.integer("block_size", 0);
  if (block < 0) view.fail("block_size is " + std::to_string(block));
  if (block == 0 && (scale.empty() || (scale.size() == 1 && scale[0] == Dim(1)))) {
    // A scale of one element serves all, whatever the axis.
    return {Grain::tensor, 0, 0};
  }
  const std::size_t axis = view.axis("axis", 1, x.size());
  if (block == 0) {
    check_rank(view, 1, 1);
    check_equal(view, scale[0], x[axis], "scales against axis " + std::to_string(axis));
    return {Grain::channel, axis, 0};
  }
  check_rank(view, 1, x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (i != axis)
      check_equal(view, scale[i], x[i], "axis " + std::to_string(i) + " of the scales");
    else if (x[i].known())
      check_equal(view, scale[i], floor_div(x[i] + (block - 1), block), "blocks of the scales");
  }
  return {Grain::block, axis, block};
}

void check_zero_point(const NodeView& view) {
  if (!view.has(2)) return;
  const Shape &zero = view.in(2).shape, &scale = view.in(1).shape;
  if (element_count(zero) == 1 && element_count(scale) == 1) return;  // [] beside [1]
  check_rank(view, 2, scale.size());
  for (std::size_t i = 0; i < scale.size(); ++i) check_equal(view, zero[i], scale[i], "zero points against scales");
}

/// The type that an attribute says; `undefined` where it is absent.
DType stated(const NodeView& view, const char* attribute) {
  const auto given = view.node.integer(attribute, 0);
  if (given < 0) view.fail(std::string(attribute) + " is " + std::to_string(given));
  if (given > static_cast<std::int64_t>(DType::i4))
    view.refuse("element type " + std::to_string(given) + " (" + attribute + ") is not supported");
  return static_cast<DType>(given);
}

void check_scale_type(const NodeView& view) {
  const DType type = view.in(1).dtype;
  if (type == DType::undefined) return;
  if (!is_floating(type) && type != DType::i32) view.fail("the scales are of type " + std::string(to_string(type)));
  if (!is_floating(type) || bits(type) < 16) view.refuse("scales of type " + std::string(to_string(type)) + " are not supported");
}

std::vector<ValueInfo> infer_dequantize(const NodeView& view) {
  scales(view);
  check_zero_point(view);
  if (view.has(2)) same_types(view, {0, 2});
  check_scale_type(view);
  const DType type = stated(view, "output_dtype");
  if (type != DType::undefined && (!is_floating(type) || bits(type) < 16))
    view.fail("codes do not stand for " + std::string(to_string(type)));
  return {value(type == DType::undefined ? view.in(1).dtype : type, view.in(0).shape)};
}

void check_code_type(const NodeView& view, DType type) {
  switch (type) {
    case DType::undefined:
    case DType::u8:
    case DType::i8:
    case DType::u16:
    case DType::i16:
    case DType::u4:
    case DType::i4:
    case DType::f8e4m3fn:
    case DType::f8e4m3fnuz:
    case DType::f8e5m2:
    case DType::f8e5m2fnuz:
      return;
    default:
      view.refuse("quantizing to " + std::string(to_string(type)) + " is not supported");
  }
}

std::vector<ValueInfo> infer_quantize(const NodeView& view) {
  scales(view);
  check_zero_point(view);
  check_scale_type(view);
  const DType asked = stated(view, "output_dtype"), precision = stated(view, "precision");
  if (precision != DType::undefined && (!is_floating(precision) || bits(precision) < 16))
    view.fail("precision is " + std::string(to_string(precision)));
  const DType type = view.has(2) ? view.in(2).dtype : asked == DType::undefined ? DType::u8 : asked;
  if (asked != DType::undefined && type != DType::undefined && asked != type)
    view.fail("output_dtype is " + std::string(to_string(asked)) + ", the zero points are of type " + std::string(to_string(type)));
  check_code_type(view, type);
  return {value(type, view.in(0).shape)};
}

/// Codes, and the scale and zero point of the whole tensor.
std::vector<ValueInfo> infer_dynamic(const NodeView& view) {
  if (view.in(0).dtype != DType::f32) view.fail("the input is of type " + std::string(to_string(view.in(0).dtype)));
  return {value(DType::u8, view.in(0).shape), value(DType::f32, {}), value(DType::u8, {})};
}

void axes_dynamic(const NodeView& view, AxisMaps& maps) { link_all(view, maps, 0); }

void axes_quantize(const NodeView& view, AxisMaps& maps) {
  link_all(view, maps, 0);
  const Scales s = scales(view);
  const Shape& x = view.in(0).shape;
  for (std::size_t slot = 1; slot < 3; ++slot) {
    if (!view.has(slot) || s.grain == Grain::tensor) continue;
    if (s.grain == Grain::channel) {
      maps.same(AxisMaps::in(slot, 0), AxisMaps::out(0, s.axis));
      continue;
    }
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (i != s.axis) {
        maps.same(AxisMaps::in(slot, i), AxisMaps::out(0, i));
      } else if (x[i].known() && x[i].value() % s.block == 0) {
        maps.blocks(AxisMaps::in(slot, i), 1, AxisMaps::out(0, i), s.block);
      } else {
        maps.pin(AxisMaps::in(0, i), "the last block is not whole");
        maps.pin(AxisMaps::in(slot, i), "the last block is not whole");
      }
    }
  }
}

const bool registered = [] {
  for (int since : {10, 13, 19, 21, 23}) {
    RegisterOperator({"DequantizeLinear", "", since, infer_dequantize, axes_quantize, nullptr, nullptr, true, {0, 1, 2}});
    RegisterOperator({"QuantizeLinear", "", since, infer_quantize, axes_quantize, nullptr, nullptr, true, {1, 2}});
  }
  RegisterOperator({"DynamicQuantizeLinear", "", 11, infer_dynamic, axes_dynamic, nullptr, nullptr, true});
  return true;
}();

}  // namespace
}  // namespace espalier
