#pragma once
/// Blocks of GGUF's quantized types to f32 (the layouts are those of ggml's block_* structures; GGUF specification). Each function
/// takes `count` elements, whole blocks.
#include <cstddef>
#include <cstring>

namespace espalier::ggml {

template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

/// IEEE half precision, little-endian.
float half(const std::byte* from);

void from_q4_0(const std::byte* from, std::size_t count, float* to);
void from_q4_1(const std::byte* from, std::size_t count, float* to);
void from_q5_0(const std::byte* from, std::size_t count, float* to);
void from_q5_1(const std::byte* from, std::size_t count, float* to);
void from_q8_0(const std::byte* from, std::size_t count, float* to);
void from_q8_1(const std::byte* from, std::size_t count, float* to);
void from_q2_k(const std::byte* from, std::size_t count, float* to);
void from_q3_k(const std::byte* from, std::size_t count, float* to);
void from_q4_k(const std::byte* from, std::size_t count, float* to);
void from_q5_k(const std::byte* from, std::size_t count, float* to);
void from_q6_k(const std::byte* from, std::size_t count, float* to);
void from_q8_k(const std::byte* from, std::size_t count, float* to);

}  // namespace espalier::ggml
