#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

namespace espalier {

/// Element types, numbered as ONNX's TensorProto.DataType.
enum class DType : std::int32_t {
  undefined = 0,
  f32 = 1,
  u8 = 2,
  i8 = 3,
  u16 = 4,
  i16 = 5,
  i32 = 6,
  i64 = 7,
  string = 8,
  boolean = 9,
  f16 = 10,
  f64 = 11,
  u32 = 12,
  u64 = 13,
  c64 = 14,
  c128 = 15,
  bf16 = 16,
  f8e4m3fn = 17,
  f8e4m3fnuz = 18,
  f8e5m2 = 19,
  f8e5m2fnuz = 20,
  u4 = 21,
  i4 = 22,
  f4e2m1 = 23,
  f8e8m0 = 24,
  u2 = 25,
  i2 = 26,
};
/// Element types that the graph knows are numbered from 1 to this.
constexpr std::int64_t kLastType = 26;

/// "float32", "int8", … (the names of ONNX and NumPy).
std::string_view to_string(DType type);
std::optional<DType> dtype_from(std::string_view name);
/// Bits of one element; 4 or 2 for the packed types; 0 for string and undefined.
int bits(DType type);
/// Bytes of `count` elements, packed types rounded up; throws Error(invalid_input) when the product overflows or count < 0.
std::uint64_t byte_size(DType type, std::int64_t count);
bool is_floating(DType type);

}  // namespace espalier
