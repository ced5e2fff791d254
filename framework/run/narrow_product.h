#pragma once
/// A product with a weight that is kept in a wider type than the product has.
#include <ATen/core/Tensor.h>

#include <functional>

namespace espalier {

/// x [..., in] · weight [in, out], cast to x's type. The weight is cast again for the backward pass instead of being kept in both
/// types, and what comes back of it is handed to `gradient` in x's type instead of being widened into the weight's own gradient.
/// Both are the numbers that a product with a cast copy gives. The weight requires a gradient and must not change before the
/// backward pass is over.
at::Tensor narrow_product(const at::Tensor& x, const at::Tensor& weight, std::function<void(at::Tensor)> gradient);

}  // namespace espalier
