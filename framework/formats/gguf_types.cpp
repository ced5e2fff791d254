#include "formats/gguf_types.h"

#include <array>
#include <bit>
#include <cstring>

#include "formats/gguf_blocks.h"

namespace espalier {
namespace {

using namespace ggml;

void from_f32(const std::byte* from, std::size_t count, float* to) { std::memcpy(to, from, count * sizeof(float)); }
void from_f16(const std::byte* from, std::size_t count, float* to) {
  for (std::size_t i = 0; i < count; ++i) to[i] = half(from + 2 * i);
}
void from_bf16(const std::byte* from, std::size_t count, float* to) {
  for (std::size_t i = 0; i < count; ++i)
    to[i] = std::bit_cast<float>(static_cast<std::uint32_t>(load<std::uint16_t>(from + 2 * i)) << 16);
}
void from_f64(const std::byte* from, std::size_t count, float* to) {
  for (std::size_t i = 0; i < count; ++i) to[i] = static_cast<float>(load<double>(from + 8 * i));
}
template <class T>
void from_integers(const std::byte* from, std::size_t count, float* to) {
  for (std::size_t i = 0; i < count; ++i) to[i] = static_cast<float>(load<T>(from + sizeof(T) * i));
}
constexpr auto from_i8 = from_integers<std::int8_t>;
constexpr auto from_i16 = from_integers<std::int16_t>;
constexpr auto from_i32 = from_integers<std::int32_t>;

// Sizes of all types, so that a file's extents can be checked whether or not a type is read.
constexpr std::array<GgmlType, 33> kTypes{{
    {0, "F32", 1, 4, from_f32},        {1, "F16", 1, 2, from_f16},        {2, "Q4_0", 32, 18, from_q4_0},
    {3, "Q4_1", 32, 20, from_q4_1},    {6, "Q5_0", 32, 22, from_q5_0},    {7, "Q5_1", 32, 24, from_q5_1},
    {8, "Q8_0", 32, 34, from_q8_0},    {9, "Q8_1", 32, 36, from_q8_1},    {10, "Q2_K", 256, 84, from_q2_k},
    {11, "Q3_K", 256, 110, from_q3_k}, {12, "Q4_K", 256, 144, from_q4_k}, {13, "Q5_K", 256, 176, from_q5_k},
    {14, "Q6_K", 256, 210, from_q6_k}, {15, "Q8_K", 256, 292, from_q8_k}, {16, "IQ2_XXS", 256, 66, nullptr},
    {17, "IQ2_XS", 256, 74, nullptr},  {18, "IQ3_XXS", 256, 98, nullptr}, {19, "IQ1_S", 256, 50, nullptr},
    {20, "IQ4_NL", 32, 18, nullptr},   {21, "IQ3_S", 256, 110, nullptr},  {22, "IQ2_S", 256, 82, nullptr},
    {23, "IQ4_XS", 256, 136, nullptr}, {24, "I8", 1, 1, from_i8},         {25, "I16", 1, 2, from_i16},
    {26, "I32", 1, 4, from_i32},       {27, "I64", 1, 8, nullptr},        {28, "F64", 1, 8, from_f64},
    {29, "IQ1_M", 256, 56, nullptr},   {30, "BF16", 1, 2, from_bf16},     {34, "TQ1_0", 256, 54, nullptr},
    {35, "TQ2_0", 256, 66, nullptr},   {39, "MXFP4", 32, 17, nullptr},    {40, "NVFP4", 64, 36, nullptr},
}};

}  // namespace

std::string readable_ggml_types() {
  std::string names;
  for (const GgmlType& type : kTypes)
    if (type.dequantize) names += (names.empty() ? "" : ", ") + std::string(type.name);
  return names;
}

const GgmlType* ggml_type(std::uint32_t id) {
  for (const GgmlType& type : kTypes) {
    if (type.id == id) return &type;
  }
  return nullptr;
}

}  // namespace espalier
