#include "graph/dtype.h"

#include <array>
#include <limits>
#include <string>

#include "sdk/error.h"

namespace espalier {
namespace {

struct Row {
  DType type;
  std::string_view name;
  int bits;
};

constexpr std::array<Row, 27> kTypes{{
    {DType::undefined, "undefined", 0},
    {DType::f32, "float32", 32},
    {DType::u8, "uint8", 8},
    {DType::i8, "int8", 8},
    {DType::u16, "uint16", 16},
    {DType::i16, "int16", 16},
    {DType::i32, "int32", 32},
    {DType::i64, "int64", 64},
    {DType::string, "string", 0},
    {DType::boolean, "bool", 8},
    {DType::f16, "float16", 16},
    {DType::f64, "float64", 64},
    {DType::u32, "uint32", 32},
    {DType::u64, "uint64", 64},
    {DType::c64, "complex64", 64},
    {DType::c128, "complex128", 128},
    {DType::bf16, "bfloat16", 16},
    {DType::f8e4m3fn, "float8e4m3fn", 8},
    {DType::f8e4m3fnuz, "float8e4m3fnuz", 8},
    {DType::f8e5m2, "float8e5m2", 8},
    {DType::f8e5m2fnuz, "float8e5m2fnuz", 8},
    {DType::u4, "uint4", 4},
    {DType::i4, "int4", 4},
    {DType::f4e2m1, "float4e2m1", 4},
    {DType::f8e8m0, "float8e8m0", 8},
    {DType::u2, "uint2", 2},
    {DType::i2, "int2", 2},
}};

const Row& row(DType type) {
  auto index = static_cast<std::int32_t>(type);
  if (index < 0 || index >= static_cast<std::int32_t>(kTypes.size())) return kTypes[0];  // a number from a file
  return kTypes[static_cast<std::size_t>(index)];
}

}  // namespace

std::string_view to_string(DType type) { return row(type).name; }

std::optional<DType> dtype_from(std::string_view name) {
  for (const Row& r : kTypes)
    if (r.name == name && r.type != DType::undefined) return r.type;
  return std::nullopt;
}

int bits(DType type) { return row(type).bits; }

std::uint64_t byte_size(DType type, std::int64_t count) {
  const auto width = static_cast<std::uint64_t>(bits(type));
  if (width == 0) throw_invalid("elements of type " + std::string(to_string(type)) + " have no fixed size");
  if (count < 0) throw_invalid("a tensor cannot have " + std::to_string(count) + " elements");
  const auto n = static_cast<std::uint64_t>(count);
  if (const std::uint64_t in_byte = 8 / width; in_byte > 1) return n / in_byte + (n % in_byte != 0);
  if (n > std::numeric_limits<std::uint64_t>::max() / (width / 8))
    throw_invalid(std::to_string(count) + " elements of " + std::string(to_string(type)) + " overflow a 64-bit size");
  return n * (width / 8);
}

bool is_floating(DType type) {
  switch (type) {
    case DType::f32:
    case DType::f64:
    case DType::f16:
    case DType::bf16:
    case DType::f8e4m3fn:
    case DType::f8e4m3fnuz:
    case DType::f8e5m2:
    case DType::f8e5m2fnuz:
    case DType::f4e2m1:
    case DType::f8e8m0:
      return true;
    default:
      return false;
  }
}

}  // namespace espalier
