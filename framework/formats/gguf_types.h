#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace espalier {

/// An element type of GGUF: rows are made of blocks of `block` elements in `bytes` bytes.
struct GgmlType {
  std::uint32_t id;
  std::string_view name;
  std::uint32_t block, bytes;
  /// `count` elements (whole blocks) to f32; nullptr where this project does not read the type.
  void (*dequantize)(const std::byte* from, std::size_t count, float* to);
};

/// nullptr for a number that GGUF does not define.
const GgmlType* ggml_type(std::uint32_t id);
/// "F32, F16, Q4_0, …": the types that can be dequantized.
std::string readable_ggml_types();

}  // namespace espalier
