#include <ATen/TensorOperators.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/amin.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/div.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/round.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>

#include "graph/op.h"
#include "run/op.h"
#include "run/tensor.h"
#include "sdk/error.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;

/// Where blocks are whole, their axis is split in two, [blocks, block]: a factor for each block broadcasts then, and no tensor of
/// the weight's size is made of the scales (nor kept for the backward pass).
struct Split {
  std::int64_t axis = -1, block = 0;

  Split(const RunView& v, const at::Tensor& x, const at::Tensor& scale) {
    const std::int64_t size = v.node.integer("block_size", 0);
    if (size <= 0 || scale.dim() != x.dim() || (scale.numel() == 1 && scale.dim() <= 1) || x.numel() == 0) return;
    const std::int64_t at = v.axis("axis", 1, x.dim());
    if (x.size(at) % size != 0) return;
    axis = at;
    block = size;
  }
  at::Tensor apart(const at::Tensor& x) const { return axis < 0 ? x : x.unflatten(axis, {-1, block}); }
  at::Tensor joined(const at::Tensor& x) const { return axis < 0 ? x : x.flatten(axis, axis + 1); }
};

/// Scale or zero point in a shape that broadcasts over x (split.apart(x)): one number, one for each index of `axis`, or one for
/// each block of `block_size` indices along it.
at::Tensor spread(const RunView& v, const at::Tensor& x, const at::Tensor& factor, const Split& split) {
  if (factor.numel() == 1 && factor.dim() <= 1) return factor.reshape({});
  const std::int64_t axis = v.axis("axis", 1, x.dim()), block = v.node.integer("block_size", 0);
  if (factor.dim() == 1 && block == 0) {
    if (factor.size(0) != x.size(axis))
      v.fail(fmt::format("{} scales or zero points for an axis of length {}", factor.size(0), x.size(axis)));
    std::vector<std::int64_t> shape(static_cast<std::size_t>(x.dim()), 1);
    shape[static_cast<std::size_t>(axis)] = x.size(axis);
    return factor.reshape(shape);
  }
  bool fits = factor.dim() == x.dim() && block > 0;
  for (std::int64_t i = 0; fits && i < x.dim(); ++i) fits = factor.size(i) == (i == axis ? (x.size(i) - 1) / block + 1 : x.size(i));
  if (!fits) v.fail(fmt::format("scales or zero points do not fit the input with block_size {} along axis {}", block, axis));
  if (split.axis >= 0) return factor.unsqueeze(axis + 1);
  return at::repeat_interleave(factor, std::min(block, x.size(axis)), axis).narrow(axis, 0, x.size(axis));
}

/// (x - zero point) · scale. `x` is floating where QuantizeLinear kept a gradient.
Results dequantize_linear(const RunView& v) {
  const at::Tensor &x = v.in(0), &scale = v.in(1);
  const Split split(v, x, scale);
  at::Tensor centred = split.apart(x);
  if (x.scalar_type() == at::kInt || x.scalar_type() == at::kLong) {  // subtract before rounding to the floating type
    if (v.has(2)) centred = centred.to(at::kLong) - spread(v, x, v.in(2).to(at::kLong), split);
    centred = centred.to(scale.scalar_type());
  } else {
    centred = centred.to(scale.scalar_type());
    if (v.has(2)) centred = centred - spread(v, x, v.in(2).to(scale.scalar_type()), split);
  }
  return {split.joined(centred * spread(v, x, scale, split))};
}

/// The graph's type of a value: 4-bit codes live in 8-bit tensors here, 8-bit floats in the computing type.
DType declared(const RunView& v, const std::string& name) {
  if (const Tensor* constant = v.graph.initializer(name)) return constant->dtype;
  for (const Value& input : v.graph.inputs)
    if (input.name == name && input.dtype != DType::undefined) return input.dtype;
  try {
    const ValueMap values = infer(v.graph);
    const auto found = values.find(name);
    return found == values.end() ? DType::undefined : found->second.dtype;
  } catch (const Error&) {
    return DType::undefined;  // in a body that reads values from around it
  }
}

DType target_of(const RunView& v) {
  const auto asked = static_cast<DType>(v.node.integer("output_dtype", 0));
  if (asked != DType::undefined) return asked;
  if (!v.has(2)) return DType::u8;
  const DType type = declared(v, v.node.input(2));
  if (type != DType::undefined) return type;
  if (v.in(2).element_size() == 1) v.refuse("it is not known whether the zero points have 4 or 8 bits");
  return dtype_of(v.in(2).scalar_type());
}

/// What a type can hold, and whether it is floating.
struct Range {
  double low, high;
  bool floating = false;
};

std::optional<Range> range_of(DType type) {
  switch (type) {
    case DType::u4:
      return Range{0, 15};
    case DType::i4:
      return Range{-8, 7};
    case DType::u8:
      return Range{0, 255};
    case DType::i8:
      return Range{-128, 127};
    case DType::u16:
      return Range{0, 65535};
    case DType::i16:
      return Range{-32768, 32767};
    case DType::f8e4m3fn:
      return Range{-448, 448, true};
    case DType::f8e4m3fnuz:
      return Range{-240, 240, true};
    case DType::f8e5m2:
    case DType::f8e5m2fnuz:
      return Range{-57344, 57344, true};
    default:
      return std::nullopt;
  }
}

/// x / scale, in the type that `precision` says.
at::Tensor divided(const RunView& v, const at::Tensor& x, const at::Tensor& scale) {
  const auto precision = static_cast<DType>(v.node.integer("precision", 0));
  if (precision != DType::f16 && precision != DType::bf16) return at::div(x, scale);
  const c10::ScalarType type = scalar_type(precision);
  return at::div(x.to(type), scale.to(type)).to(x.scalar_type());
}

/// Values of an 8-bit floating type, which stay in the computing type. The gradient passes straight through.
at::Tensor floating_codes(const RunView& v, at::Tensor scaled, DType target, const Range& range) {
  if (v.has(2) && v.in(2).ne(0).any().item<bool>()) v.refuse("zero points other than 0 of 8-bit floats are not supported");
  if (v.node.integer("saturate", 1) != 0) scaled = at::clamp(scaled, range.low, range.high);
  const at::Tensor plain = scaled.detach(), rounded = plain.to(scalar_type(target)).to(plain.scalar_type());
  return c10::GradMode::is_enabled() && scaled.requires_grad() ? scaled + (rounded - plain) : rounded;
}

/// Codes in x's own type. The gradient passes straight through the rounding (Bengio et al., 2013) and is zero where the code
/// saturates. Of x's size only where that happens is kept for the backward pass, and only when it happens.
struct StraightThrough : torch::autograd::Function<StraightThrough> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& scale,
                            const at::Tensor* zero, double low, double high) {
    at::Tensor codes = at::div(x, scale).round_();
    if (zero->defined()) codes.add_(*zero);
    const at::Tensor inside = codes.ge(low).logical_and_(codes.le(high));
    torch::autograd::variable_list saved{scale};
    if (!inside.all().item<bool>()) saved.push_back(inside);
    context->save_for_backward(std::move(saved));
    return codes.clamp_(low, high);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    at::Tensor gradient = at::div(gradients[0], saved[0]);
    if (saved.size() > 1) gradient = at::where(saved[1], gradient, 0.0);
    return {gradient, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

/// Round(x / scale) + zero point, saturated. Where x carries a gradient, the integers stay in a floating tensor.
Results quantize_linear(const RunView& v) {
  const DType target = target_of(v);
  const auto range = range_of(target);
  if (!range) v.refuse(fmt::format("quantizing to {} is not supported", to_string(target)));
  if (!v.in(1).is_floating_point()) v.refuse("scales that are integers are not supported");
  const at::Tensor x = v.in(0).is_floating_point() ? v.in(0) : v.in(0).to(v.in(1).scalar_type());
  const Split split(v, x, v.in(1));
  const at::Tensor parts = split.apart(x), scale = spread(v, x, v.in(1), split).to(x.scalar_type());
  if (range->floating) return {split.joined(floating_codes(v, divided(v, parts, scale), target, *range))};
  const at::Tensor zero = v.has(2) ? spread(v, x, v.in(2).to(x.scalar_type()), split) : at::Tensor();
  if (c10::GradMode::is_enabled() && x.requires_grad() && !scale.requires_grad() && v.node.integer("precision", 0) == 0)
    return {split.joined(StraightThrough::apply(parts, scale, &zero, range->low, range->high))};
  const at::Tensor scaled = divided(v, parts, scale);
  const bool grad = c10::GradMode::is_enabled() && scaled.requires_grad();
  at::Tensor rounded = grad ? scaled + (at::round(scaled.detach()) - scaled.detach()) : at::round(scaled);
  if (zero.defined()) rounded = rounded + zero;
  const at::Tensor clamped = split.joined(at::clamp(rounded, range->low, range->high));
  if (grad) return {clamped};
  const c10::ScalarType type = bits(target) == 4 ? (range->low < 0 ? at::kChar : at::kByte) : scalar_type(target);
  // Through a wider type: LibTorch's cast from floating to 16-bit unsigned is not defined everywhere.
  return {clamped.to(at::kInt).to(type)};
}

/// u8 codes over the range of the whole tensor, zero included; the gradient passes straight through the rounding. Codes stay
/// floating where x carries a gradient, as in QuantizeLinear.
Results dynamic_quantize_linear(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const at::Tensor flat = x.detach();
  const bool empty = x.numel() == 0;
  const at::Tensor zero = at::zeros({}, x.options().requires_grad(false));
  const at::Tensor least = empty ? zero : at::minimum(flat.amin(), zero), most = empty ? zero : at::maximum(flat.amax(), zero);
  at::Tensor scale = (most - least) / 255;
  scale = at::where(scale.eq(0), 1.0, scale).to(x.scalar_type());  // nothing but zeros
  const at::Tensor offset = at::clamp(at::round(-least / scale), 0, 255);
  const at::Tensor scaled = at::div(x, scale);
  const bool grad = c10::GradMode::is_enabled() && scaled.requires_grad();
  const at::Tensor rounded = grad ? scaled + (at::round(scaled.detach()) - scaled.detach()) : at::round(scaled);
  const at::Tensor codes = at::clamp(rounded + offset, 0, 255);
  return {grad ? codes : codes.to(at::kByte), scale, offset.to(at::kByte)};
}

const RegisterRun entries[] = {{"", "DequantizeLinear", dequantize_linear},
                               {"", "QuantizeLinear", quantize_linear},
                               {"", "DynamicQuantizeLinear", dynamic_quantize_linear}};

}  // namespace
}  // namespace espalier
