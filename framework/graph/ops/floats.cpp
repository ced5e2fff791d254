#include "graph/ops/floats.h"

#include <bit>
#include <cmath>

#include "sdk/error.h"

namespace espalier::ops {
namespace {

/// To nearest even; infinities and NaN as they are.
std::uint16_t to_half(double value) {
  const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return 0x7e00;
  const double size = std::fabs(value);
  if (size >= 65520) return sign | 0x7c00;
  int exponent = 0;
  std::frexp(size, &exponent);                    // size = m·2^exponent, m in [0.5, 1)
  const int unit = std::max(exponent - 11, -24);  // weight of the last bit
  const auto steps = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(size, -unit)));
  if (size == 0) return sign;
  // A subnormal's steps are its bits; a normal's carry the hidden bit, which adds itself to the exponent.
  return static_cast<std::uint16_t>(sign | (unit == -24 ? steps : steps + (static_cast<std::uint32_t>(unit + 24) << 10)));
}

std::uint16_t to_bfloat(double value) {
  const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(value));
  if (std::isnan(value)) return 0x7fc0;
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

}  // namespace

Tensor scaled(const Tensor& tensor, double factor) {
  std::vector<double> values = tensor.numbers();
  for (double& v : values) v *= factor;
  switch (tensor.dtype) {
    case DType::f64:
      return Tensor::of(DType::f64, tensor.shape, values);
    case DType::f32:
      return Tensor::of(DType::f32, tensor.shape, std::vector<float>(values.begin(), values.end()));
    case DType::f16:
    case DType::bf16: {
      std::vector<std::uint16_t> out;
      for (double v : values) out.push_back(tensor.dtype == DType::f16 ? to_half(v) : to_bfloat(v));
      return Tensor::of(tensor.dtype, tensor.shape, out);
    }
    default:
      throw_invalid("elements of type " + std::string(to_string(tensor.dtype)) + " cannot be scaled");
  }
}

}  // namespace espalier::ops
