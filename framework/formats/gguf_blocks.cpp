#include "formats/gguf_blocks.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

namespace espalier::ggml {
namespace {

constexpr std::size_t kBlock = 32, kSuper = 256;

unsigned byte_at(const std::byte* from, std::size_t i) { return std::to_integer<unsigned>(from[i]); }
int signed_at(const std::byte* from, std::size_t i) { return static_cast<std::int8_t>(from[i]); }

/// 32 elements of four bits in 16 bytes: low nibbles are the first half, high ones the second.
unsigned nibble(const std::byte* packed, std::size_t i) { return i < 16 ? byte_at(packed, i) & 15 : byte_at(packed, i - 16) >> 4; }

/// The fifth bit of each of 32 elements.
unsigned fifth(std::uint32_t bits, std::size_t i) { return (bits >> i & 1) << 4; }

/// Element i of 256 in fields of two bits: 128 elements take 32 bytes, whose four fields lie 32 elements apart.
unsigned pair_of(const std::byte* packed, std::size_t i) {
  return byte_at(packed, i / 128 * 32 + i % 32) >> 2 * (i % 128 / 32) & 3;
}

/// Element i of 256 in nibbles: 64 elements take 32 bytes, low nibbles first.
unsigned nibble_of(const std::byte* packed, std::size_t i) {
  const unsigned both = byte_at(packed, i / 64 * 32 + i % 32);
  return i % 64 < 32 ? both & 15 : both >> 4;
}

struct ScaleAndMinimum {
  unsigned scale, minimum;
};

/// Eight scales and eight minima of six bits in twelve bytes: the first four lie in the low six bits of bytes 0 to 3 (minima: 4 to
/// 7), the others in the nibbles of bytes 8 to 11, with their upper two bits above the first four's.
ScaleAndMinimum six_bits(const std::byte* packed, std::size_t j) {
  if (j < 4) return {byte_at(packed, j) & 63, byte_at(packed, j + 4) & 63};
  const unsigned low = byte_at(packed, j + 4);
  return {(low & 15) | byte_at(packed, j - 4) >> 6 << 4, low >> 4 | byte_at(packed, j) >> 6 << 4};
}

/// Sixteen signed scales of six bits in twelve bytes: low nibbles of bytes 0 to 7, then their high nibbles; upper two bits in bytes
/// 8 to 11.
int scale_of_q3(const std::byte* packed, std::size_t j) {
  const unsigned low = byte_at(packed, j % 8), high = byte_at(packed, 8 + j % 4) >> 2 * (j / 4) & 3;
  return static_cast<int>((j < 8 ? low & 15 : low >> 4) | high << 4) - 32;
}

}  // namespace

float half(const std::byte* from) {
  const auto bits = load<std::uint16_t>(from);
  const int exponent = bits >> 10 & 31;
  const auto mantissa = static_cast<std::uint32_t>(bits & 1023);
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000) << 16;
  if (exponent == 0) {
    const float tiny = std::ldexp(static_cast<float>(mantissa), -24);
    return sign ? -tiny : tiny;
  }
  const std::uint32_t wide = exponent == 31 ? 255 : static_cast<std::uint32_t>(exponent) + 112;
  return std::bit_cast<float>(sign | wide << 23 | mantissa << 13);
}

/// Scale; nibbles less 8.
void from_q4_0(const std::byte* from, std::size_t count, float* to) {
  for (std::size_t i = 0; i < count; i += kBlock, from += 18, to += kBlock) {
    const float scale = half(from);
    for (std::size_t j = 0; j < kBlock; ++j) to[j] = static_cast<float>(static_cast<int>(nibble(from + 2, j)) - 8) * scale;
  }
}

/// Scale and minimum; nibbles.
void from_q4_1(const std::byte* from, std::size_t count, float* to) {
  for (std::size_t i = 0; i < count; i += kBlock, from += 20, to += kBlock) {
    const float scale = half(from), minimum = half(from + 2);
    for (std::size_t j = 0; j < 16; ++j) {  // both halves at once: most files of this size are of this type
      const unsigned both = byte_at(from + 4, j);
      to[j] = static_cast<float>(both & 15) * scale + minimum;
      to[j + 16] = static_cast<float>(both >> 4) * scale + minimum;
    }
  }
}

/// Scale; fifth bits; nibbles; less 16.
void from_q5_0(const std::byte* from, std::size_t count, float* to) {
  for (std::size_t i = 0; i < count; i += kBlock, from += 22, to += kBlock) {
    const float scale = half(from);
    const auto high = load<std::uint32_t>(from + 2);
    for (std::size_t j = 0; j < kBlock; ++j)
      to[j] = static_cast<float>(static_cast<int>(nibble(from + 6, j) | fifth(high, j)) - 16) * scale;
  }
}

/// Scale and minimum; fifth bits; nibbles.
void from_q5_1(const std::byte* from, std::size_t count, float* to) {
  for (std::size_t i = 0; i < count; i += kBlock, from += 24, to += kBlock) {
    const float scale = half(from), minimum = half(from + 2);
    const auto high = load<std::uint32_t>(from + 4);
    for (std::size_t j = 0; j < kBlock; ++j) to[j] = static_cast<float>(nibble(from + 8, j) | fifth(high, j)) * scale + minimum;
  }
}

/// Scale; signed bytes.
void from_q8_0(const std::byte* from, std::size_t count, float* to) {
  for (std::size_t i = 0; i < count; i += kBlock, from += 34, to += kBlock) {
    const float scale = half(from);
    for (std::size_t j = 0; j < kBlock; ++j) to[j] = static_cast<float>(signed_at(from + 2, j)) * scale;
  }
}

/// Scale; the sum of the elements (for products, not needed here); signed bytes.
void from_q8_1(const std::byte* from, std::size_t count, float* to) {
  for (std::size_t i = 0; i < count; i += kBlock, from += 36, to += kBlock) {
    const float scale = half(from);
    for (std::size_t j = 0; j < kBlock; ++j) to[j] = static_cast<float>(signed_at(from + 4, j)) * scale;
  }
}

/// Sixteen bytes, each a scale and a minimum of four bits for 16 elements; fields of two bits; scales of the scales and of the
/// minima.
void from_q2_k(const std::byte* from, std::size_t count, float* to) {
  for (std::size_t i = 0; i < count; i += kSuper, from += 84, to += kSuper) {
    const float scale = half(from + 80), minimum = half(from + 82);
    for (std::size_t j = 0; j < kSuper; ++j) {
      const unsigned both = byte_at(from, j / 16);
      to[j] = scale * static_cast<float>(both & 15) * static_cast<float>(pair_of(from + 16, j)) -
              minimum * static_cast<float>(both >> 4);
    }
  }
}

/// Third bits (32 bytes, whose eight bits lie 32 elements apart; a bit that is not set takes 4 away); fields of two bits; scales.
void from_q3_k(const std::byte* from, std::size_t count, float* to) {
  for (std::size_t i = 0; i < count; i += kSuper, from += 110, to += kSuper) {
    const float all = half(from + 108);
    for (std::size_t j = 0; j < kSuper; ++j) {
      const int third = byte_at(from, j % 32) >> j / 32 & 1 ? 0 : 4;
      to[j] = all * static_cast<float>(scale_of_q3(from + 96, j / 16)) *
              static_cast<float>(static_cast<int>(pair_of(from + 32, j)) - third);
    }
  }
}

/// Scales of scales and minima; those, for 32 elements each; nibbles.
void from_q4_k(const std::byte* from, std::size_t count, float* to) {
  for (std::size_t i = 0; i < count; i += kSuper, from += 144, to += kSuper) {
    const float scale = half(from), minimum = half(from + 2);
    for (std::size_t j = 0; j < kSuper; ++j) {
      const ScaleAndMinimum own = six_bits(from + 4, j / 32);
      to[j] = scale * static_cast<float>(own.scale) * static_cast<float>(nibble_of(from + 16, j)) -
              minimum * static_cast<float>(own.minimum);
    }
  }
}

/// As Q4_K, with fifth bits: 32 bytes, whose eight bits lie 32 elements apart.
void from_q5_k(const std::byte* from, std::size_t count, float* to) {
  for (std::size_t i = 0; i < count; i += kSuper, from += 176, to += kSuper) {
    const float scale = half(from), minimum = half(from + 2);
    for (std::size_t j = 0; j < kSuper; ++j) {
      const ScaleAndMinimum own = six_bits(from + 4, j / 32);
      const unsigned bits = nibble_of(from + 48, j) | (byte_at(from + 16, j % 32) >> j / 32 & 1) << 4;
      to[j] = scale * static_cast<float>(own.scale) * static_cast<float>(bits) - minimum * static_cast<float>(own.minimum);
    }
  }
}

/// Low four bits: of 128 elements in 64 bytes, low nibbles first; upper two bits as in Q2_K; signed scales of 16 elements; less 32.
void from_q6_k(const std::byte* from, std::size_t count, float* to) {
  for (std::size_t i = 0; i < count; i += kSuper, from += 210, to += kSuper) {
    const float all = half(from + 208);
    for (std::size_t j = 0; j < kSuper; ++j) {
      const unsigned both = byte_at(from, j / 128 * 64 + j % 64);
      const unsigned bits = (j % 128 < 64 ? both & 15 : both >> 4) | pair_of(from + 128, j) << 4;
      to[j] = all * static_cast<float>(signed_at(from + 192, j / 16)) * static_cast<float>(static_cast<int>(bits) - 32);
    }
  }
}

/// Scale in f32; signed bytes; sums of 16 elements (for products).
void from_q8_k(const std::byte* from, std::size_t count, float* to) {
  for (std::size_t i = 0; i < count; i += kSuper, from += 292, to += kSuper) {
    const auto scale = load<float>(from);
    for (std::size_t j = 0; j < kSuper; ++j) to[j] = scale * static_cast<float>(signed_at(from + 4, j));
  }
}

}  // namespace espalier::ggml
