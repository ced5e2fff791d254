#pragma once
/// LibTorch stores uint16, uint32 and uint64, and has few kernels for them: the ways around. Other types pass as they are.
#include <ATen/core/Tensor.h>

namespace espalier {

/// The same bytes as the signed type of the same width, for what only moves elements.
at::Tensor as_signed(const at::Tensor& x);
/// int64 of the same value; of uint64 the bits, which sums and products take modulo 2^64 all the same.
at::Tensor widened(const at::Tensor& x);
/// As widened(), and uint64 shifted so that the order stays.
at::Tensor ordered(const at::Tensor& x);
/// Back from as_signed() or widened().
at::Tensor narrowed(const at::Tensor& x, c10::ScalarType type);
/// Back from ordered().
at::Tensor from_ordered(const at::Tensor& x, c10::ScalarType type);

}  // namespace espalier
