#include "formats/gguf_types.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>

namespace espalier {
namespace {

template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

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

void from_f32(const std::byte* from, std::size_t count, float* to) { std::memcpy(to, from, count * sizeof(float)); }
void from_f16(const std::byte* from, std::size_t count, float* to) {
  for (std::size_t i = 0; i < count; ++i) to[i] = half(from + 2 * i);
}
void from_bf16(const std::byte* from, std::size_t count, float* to) {
  for (std::size_t i = 0; i < count; ++i)
    to[i] = std::bit_cast<float>(static_cast<std::uint32_t>(load<std::uint16_t>(from + 2 * i)) << 16);
}
/// 32 elements: scale and minimum in f16, then 16 bytes; low nibbles are the first half of the block, high ones the second.
void from_q4_1(const std::byte* from, std::size_t count, float* to) {
  for (std::size_t i = 0; i < count; i += 32, from += 20, to += 32) {
    const float scale = half(from), minimum = half(from + 2);
    for (std::size_t j = 0; j < 16; ++j) {
      const auto pair = static_cast<unsigned>(from[4 + j]);
      to[j] = static_cast<float>(pair & 15) * scale + minimum;
      to[j + 16] = static_cast<float>(pair >> 4) * scale + minimum;
    }
  }
}
/// 32 elements: scale in f16, then 32 signed bytes.
void from_q8_0(const std::byte* from, std::size_t count, float* to) {
  for (std::size_t i = 0; i < count; i += 32, from += 34, to += 32) {
    const float scale = half(from);
    for (std::size_t j = 0; j < 32; ++j) to[j] = static_cast<float>(static_cast<std::int8_t>(from[2 + j])) * scale;
  }
}

// Sizes of all types, so that a file's extents can be checked whether or not a type is read.
constexpr std::array<GgmlType, 33> kTypes{{
    {0, "F32", 1, 4, from_f32},        {1, "F16", 1, 2, from_f16},        {2, "Q4_0", 32, 18, nullptr},
    {3, "Q4_1", 32, 20, from_q4_1},    {6, "Q5_0", 32, 22, nullptr},      {7, "Q5_1", 32, 24, nullptr},
    {8, "Q8_0", 32, 34, from_q8_0},    {9, "Q8_1", 32, 36, nullptr},      {10, "Q2_K", 256, 84, nullptr},
    {11, "Q3_K", 256, 110, nullptr},   {12, "Q4_K", 256, 144, nullptr},   {13, "Q5_K", 256, 176, nullptr},
    {14, "Q6_K", 256, 210, nullptr},   {15, "Q8_K", 256, 292, nullptr},   {16, "IQ2_XXS", 256, 66, nullptr},
    {17, "IQ2_XS", 256, 74, nullptr},  {18, "IQ3_XXS", 256, 98, nullptr}, {19, "IQ1_S", 256, 50, nullptr},
    {20, "IQ4_NL", 32, 18, nullptr},   {21, "IQ3_S", 256, 110, nullptr},  {22, "IQ2_S", 256, 82, nullptr},
    {23, "IQ4_XS", 256, 136, nullptr}, {24, "I8", 1, 1, nullptr},         {25, "I16", 1, 2, nullptr},
    {26, "I32", 1, 4, nullptr},        {27, "I64", 1, 8, nullptr},        {28, "F64", 1, 8, nullptr},
    {29, "IQ1_M", 256, 56, nullptr},   {30, "BF16", 1, 2, from_bf16},     {34, "TQ1_0", 256, 54, nullptr},
    {35, "TQ2_0", 256, 66, nullptr},   {39, "MXFP4", 32, 17, nullptr},    {40, "NVFP4", 64, 36, nullptr},
}};

}  // namespace

const GgmlType* ggml_type(std::uint32_t id) {
  for (const GgmlType& type : kTypes) {
    if (type.id == id) return &type;
  }
  return nullptr;
}

}  // namespace espalier
