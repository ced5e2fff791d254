#pragma once
/// Floating types of 8 bits and less: values are rounded to them and stay in the type in which they are computed.
#include <ATen/core/Tensor.h>

#include <string>

#include "graph/dtype.h"

namespace espalier::ops {

/// float8e4m3fn, float8e4m3fnuz, float8e5m2, float8e5m2fnuz or float4e2m1: to nearest even. What is too large becomes the largest
/// number, or, unless `saturate`, infinity where the type has it and else NaN; float4e2m1 always saturates, and has zero for
/// NaN. The gradient passes straight through, and is zero where a value is too large.
at::Tensor rounded_to(const at::Tensor& x, DType type, bool saturate);
/// float8e8m0, a power of two: `mode` is up, down or nearest (half-way: up). What is too large or too small becomes the largest or
/// smallest, or NaN unless `saturate`; negative numbers become NaN. No gradient.
at::Tensor power_of_two(const at::Tensor& x, const std::string& mode, bool saturate);

}  // namespace espalier::ops
