#include "formats/float_values.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "formats/gguf_blocks.h"
#include "sdk/error.h"

namespace espalier {

std::uint16_t to_f16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000U);
  const std::uint32_t size = bits & 0x7fffffffU;
  const auto signed_half = [sign](std::uint32_t half) { return static_cast<std::uint16_t>(sign | half); };
  if (size > 0x7f800000U) return signed_half(0x7e00);   // NaN
  if (size >= 0x477ff000U) return signed_half(0x7c00);  // 65520 and more round to infinity
  if (size >= 0x38800000U) return signed_half((size - 0x38000000U + 0xfffU + (size >> 13 & 1U)) >> 13);
  if (size <= 0x33000000U) return signed_half(0);  // up to half of the smallest subnormal
  // Subnormal: whole multiples of 2^-24.
  const std::uint32_t mantissa = (size & 0x7fffffU) | 0x800000U, shift = 126 - (size >> 23);
  const std::uint32_t whole = mantissa >> shift, rest = mantissa & ((1U << shift) - 1), half = 1U << (shift - 1);
  return signed_half(whole + (rest > half || (rest == half && (whole & 1U)) ? 1U : 0U));
}

std::uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>(bits >> 16 | 0x40U);
  return static_cast<std::uint16_t>((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}

void read_floats(const Tensor& tensor, std::int64_t first, std::int64_t count, float* to) {
  const std::byte* bytes = tensor.bytes.data();
  if (tensor.dtype == DType::f32) {
    if (count > 0) std::memcpy(to, bytes + first * 4, static_cast<std::size_t>(count) * 4);
    return;
  }
  for (std::int64_t i = 0; i < count; ++i) {
    const std::byte* from = bytes + (first + i) * 2;
    to[i] = tensor.dtype == DType::bf16 ? std::bit_cast<float>(static_cast<std::uint32_t>(ggml::load<std::uint16_t>(from)) << 16)
                                        : ggml::half(from);
  }
}

void write_floats(std::span<const float> values, DType type, std::byte* to, const std::string& tensor) {
  if (type == DType::f32) {
    if (!values.empty()) std::memcpy(to, values.data(), values.size_bytes());
    return;
  }
  const bool half = type == DType::f16;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint16_t bits = half ? to_f16(values[i]) : to_bf16(values[i]);
    const std::uint16_t infinity = half ? 0x7c00 : 0x7f80;
    if ((bits & 0x7fffU) == infinity && std::isfinite(values[i]))
      throw_invalid(fmt::format("the weight {} is beyond what {} holds", values[i], to_string(type)), tensor,
                    half ? "store this model as bf16 or f32" : "store this model as f32");
    std::memcpy(to + 2 * i, &bits, sizeof bits);
  }
}

std::optional<DType> stored_type(std::string_view word) {
  if (word == "f32") return DType::f32;
  if (word == "f16") return DType::f16;
  if (word == "bf16") return DType::bf16;
  return std::nullopt;
}

}  // namespace espalier
