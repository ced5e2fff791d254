#pragma once
/// Floating weights read and stored a piece at a time, whatever type they have.
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "graph/graph.h"

namespace espalier {

/// `count` elements of an f32, f16 or bf16 tensor from `first` on.
void read_floats(const Tensor& tensor, std::int64_t first, std::int64_t count, float* to);

/// Values as f32, f16 or bf16, rounded to nearest, half to even. Infinities and NaN stay what they are. Throws Error(invalid_input)
/// naming `tensor` for a finite value beyond the type's largest.
void write_floats(std::span<const float> values, DType type, std::byte* to, const std::string& tensor);

/// "f32", "f16", "bf16", as the command line and recipes name them; nothing for other words.
std::optional<DType> stored_type(std::string_view word);

/// IEEE 754 half precision and bfloat16, rounded to nearest, half to even.
std::uint16_t to_f16(float value);
std::uint16_t to_bf16(float value);

}  // namespace espalier
