#include "run/ops/integers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/bitwise_and.h>
#include <ATen/ops/bitwise_left_shift.h>
#include <ATen/ops/bitwise_right_shift.h>
#include <ATen/ops/bitwise_xor.h>
#include <ATen/ops/div.h>
#include <ATen/ops/fmod.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/neg.h>
#include <ATen/ops/remainder.h>
#include <ATen/ops/where.h>

#include <cstdint>

namespace espalier::ops {
namespace {

bool is_scarce(c10::ScalarType type) { return type == at::kUInt16 || type == at::kUInt32 || type == at::kUInt64; }

/// Exchanges the order of int64 with that of the same bits as uint64.
at::Tensor moved(const at::Tensor& x) { return at::bitwise_xor(x, at::Scalar(INT64_MIN)); }

/// Of the bits of uint64: half the dividend is divided, the quotient doubled, and put right by one.
at::Tensor natural_quotient(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor large = b.lt(0);  // at least half the range: the quotient is 0 or 1
  const at::Tensor divisor = b.masked_fill(large, 1);
  const at::Tensor half = at::bitwise_and(at::bitwise_right_shift(a, 1), at::Scalar(INT64_MAX));
  const at::Tensor even = at::div(half, divisor, "trunc") * 2;
  const at::Tensor odd = moved(a - even * divisor).ge(moved(divisor));
  return at::where(large, moved(a).ge(moved(b)), even + odd);
}

/// Where the divisor is -1, when it is anywhere: the least integer over it is no integer of its type, and a processor's trap.
/// Undefined where nothing traps; narrower types are divided as int.
at::Tensor traps(const at::Tensor& divisor) {
  if (divisor.scalar_type() != at::kInt && divisor.scalar_type() != at::kLong) return {};
  const at::Tensor negates = divisor.eq(-1);
  return negates.any().item<bool>() ? negates : at::Tensor();
}

}  // namespace

at::Tensor widened(const at::Tensor& x) { return is_scarce(x.scalar_type()) ? x.to(at::kLong) : x; }

at::Tensor ordered(const at::Tensor& x) { return x.scalar_type() == at::kUInt64 ? moved(x.to(at::kLong)) : widened(x); }

at::Tensor narrowed(const at::Tensor& x, c10::ScalarType type) { return is_scarce(type) ? x.to(type) : x; }

at::Tensor restored(const at::Tensor& x, c10::ScalarType type) { return narrowed(type == at::kUInt64 ? moved(x) : x, type); }

at::Tensor quotient(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = widened(a), y = widened(b);
  if (a.scalar_type() == at::kUInt64) return natural_quotient(x, y).to(at::kUInt64);
  const at::Tensor negates = traps(y);
  if (!negates.defined()) return at::div(x, y, "trunc").to(a.scalar_type());
  return at::where(negates, at::neg(x), at::div(x, y.masked_fill(negates, 1), "trunc")).to(a.scalar_type());
}

at::Tensor rest(const at::Tensor& a, const at::Tensor& b, bool towards_zero) {
  const at::Tensor x = widened(a), y = widened(b);
  if (a.scalar_type() == at::kUInt64) return (x - natural_quotient(x, y) * y).to(at::kUInt64);
  const at::Tensor negates = traps(y), divisor = negates.defined() ? y.masked_fill(negates, 1) : y;  // nothing is left either way
  return (towards_zero ? at::fmod(x, divisor) : at::remainder(x, divisor)).to(a.scalar_type());
}

at::Tensor shifted(const at::Tensor& x, const at::Tensor& by, bool left) {
  const auto width = static_cast<std::int64_t>(8 * x.element_size());
  const at::Tensor code = x.to(at::kLong), steps = by.to(at::kLong);
  const at::Tensor beyond = steps.lt(0).logical_or(steps.ge(width));  // a count of 2^63 and more is negative here
  const at::Tensor few = steps.masked_fill(beyond, 0);
  at::Tensor out;
  if (left) {
    out = at::bitwise_left_shift(code, few);
  } else {
    // The signs that int64 draws in from the left are cut off.
    const at::Tensor but_one = at::bitwise_right_shift(at::full_like(few, INT64_MAX), few);
    out = at::bitwise_and(at::bitwise_right_shift(code, few), at::bitwise_left_shift(but_one, 1).bitwise_or(1));
  }
  return out.masked_fill(beyond, 0).to(x.scalar_type());
}

}  // namespace espalier::ops
