#include <ATen/TensorOperators.h>
#include <ATen/ops/bitwise_and.h>
#include <ATen/ops/bitwise_xor.h>
#include <fmt/format.h>

#include <limits>

#include "run/op.h"
#include "run/ops/declared.h"
#include "run/ops/narrow.h"
#include "run/tensor.h"

namespace espalier {
namespace {

using namespace ops;
using Results = std::vector<at::Tensor>;

/// The lowest bits of integers, as integers of 2 or 4 bits.
at::Tensor packable(const at::Tensor& x, DType target) {
  const std::int64_t sign = std::int64_t{1} << (bits(target) - 1);
  const at::Tensor code = at::bitwise_and(x.to(at::kLong), at::Scalar(2 * sign - 1));
  const bool with_sign = target == DType::i4 || target == DType::i2;
  return (with_sign ? at::bitwise_xor(code, at::Scalar(sign)) - sign : code).to(scalar_type(target));
}

/// Floating targets stay in the compute type (storage and compute are separate), rounded where the target is narrower.
at::Tensor converted(const RunView& v, const at::Tensor& x, DType target) {
  if (!is_floating(target)) {
    if (target == DType::boolean) return x.to(at::kBool);
    if (bits(target) < 8) return packable(x, target);
    // LibTorch's casts from floating to short unsigned types are not defined for what is negative.
    const bool twice = x.is_floating_point() && (target == DType::u16 || target == DType::u32);
    return (twice ? x.to(at::kLong) : x).to(scalar_type(target));
  }
  const bool saturate = v.node.integer("saturate", 1) != 0;
  const at::Tensor real = x.is_floating_point() ? x : x.to(v.compute);
  if (target == DType::f8e8m0) return power_of_two(real, v.node.text("round_mode", "up"), saturate);
  if (bits(target) <= 8) {
    const at::Tensor out = rounded_to(real, target, saturate);
    // Until opset 23 infinities did not saturate where a type has none and one zero.
    const bool one_zero = target == DType::f8e4m3fnuz || target == DType::f8e5m2fnuz;
    return one_zero && v.opset() < 24 ? out.masked_fill(real.isinf(), std::numeric_limits<double>::quiet_NaN()) : out;
  }
  const bool narrower = bits(target) < 32 && (v.compute == at::kFloat || v.compute == at::kDouble);
  return (narrower ? x.to(scalar_type(target)) : x).to(v.compute);
}

void refuse_strings_and_complex(const RunView& v, DType target) {
  if (target < DType::f32 || static_cast<std::int64_t>(target) > kLastType || target == DType::string || target == DType::c64 ||
      target == DType::c128 || v.in(0).is_complex())
    v.refuse(fmt::format("a cast from {} to {} is not supported", c10::toString(v.in(0).scalar_type()), to_string(target)));
}

DType stated_target(const RunView& v) {
  if (!v.node.has("to")) v.fail("attribute `to` is missing");
  const std::int64_t to = v.node.integer("to", 0);
  const auto target = to < 0 || to > kLastType ? DType::undefined : static_cast<DType>(to);
  refuse_strings_and_complex(v, target);
  return target;
}

Results cast(const RunView& v) { return {converted(v, v.in(0), stated_target(v))}; }

Results cast_like(const RunView& v) {
  const at::Tensor& like = v.in(1);
  const auto declared = declared_type(v, v.node.input(1));
  const bool plain = !like.is_floating_point() && like.scalar_type() != at::kChar && like.scalar_type() != at::kByte;
  if (!declared && !plain) v.refuse("the type to cast to is not known: give the value behind input 1 a Cast of its own");
  const DType target = declared ? *declared : dtype_of(like.scalar_type());
  refuse_strings_and_complex(v, target);
  return {converted(v, v.in(0), target)};
}

/// The type of input 0 as it is stored; of whole bytes.
DType stored_type(const RunView& v, DType target) {
  if (const auto declared = declared_type(v, v.node.input(0))) return *declared;
  if (!v.in(0).is_floating_point()) return dtype_of(v.in(0).scalar_type());
  // The only ones of their size.
  if (bits(target) == 32) return DType::f32;
  if (bits(target) == 64) return DType::f64;
  v.refuse("which floating type's bits are read is not known");
}

Results bit_cast(const RunView& v) {
  const DType target = stated_target(v);
  const at::Tensor& x = v.in(0);
  if (bits(target) < 8) {
    if (is_floating(target) || x.is_floating_point()) v.refuse(fmt::format("bits that are read as {}", to_string(target)));
    return {packable(x, target)};
  }
  const DType source = stored_type(v, target);
  if (bits(source) != bits(target)) v.fail(fmt::format("the bits of {} are no {}", to_string(source), to_string(target)));
  if (source == target) return {x};
  if (target == DType::boolean) v.refuse("bits that are read as bool");
  // An f64 value has lost bits where f32 is computed with.
  if (source == DType::f64 && v.compute != at::kDouble) v.refuse("the bits of float64 are not kept");
  const at::Tensor stored = is_floating(source) ? x.detach().to(scalar_type(source)) : x;
  const at::Tensor out = stored.contiguous().view(scalar_type(target));
  return {is_floating(target) ? out.to(v.compute) : out};
}

const RegisterRun entries[] = {{"", "Cast", cast}, {"", "CastLike", cast_like}, {"", "BitCast", bit_cast}};

}  // namespace
}  // namespace espalier
