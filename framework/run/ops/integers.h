#pragma once
/// Arithmetic on integers of every type. LibTorch has few kernels for uint16, uint32 and uint64: they are computed with as int64,
/// uint64 by its bits.
#include <ATen/core/Tensor.h>

namespace espalier::ops {

/// int64 where LibTorch has few kernels for the type, else as it is. Sums, products and logic of bits are right in it, and right
/// again in the type itself.
at::Tensor widened(const at::Tensor& x);
/// As widened(), and less and greater are right in it: uint64 is moved down by half its range.
at::Tensor ordered(const at::Tensor& x);
/// Back from widened() and from ordered(): in `type` where that is one of those that were changed, else as it is.
at::Tensor narrowed(const at::Tensor& x, c10::ScalarType type);
at::Tensor restored(const at::Tensor& x, c10::ScalarType type);

/// Towards zero; in the type of `a`. A zero divisor is LibTorch's error.
at::Tensor quotient(const at::Tensor& a, const at::Tensor& b);
/// What the quotient leaves: rounded down (the sign of `b`), or towards zero (the sign of `a`).
at::Tensor rest(const at::Tensor& a, const at::Tensor& b, bool towards_zero);
/// Shifted bits of unsigned integers; nothing is left of what is shifted by its width or more.
at::Tensor shifted(const at::Tensor& x, const at::Tensor& by, bool left);

}  // namespace espalier::ops
