#include "run/tensor.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fmt/format.h>

#include <bit>

#include "sdk/error.h"

namespace espalier {
namespace {

static_assert(std::endian::native == std::endian::little, "graph tensors are little-endian");

struct Pair {
  DType graph;
  c10::ScalarType aten;
};
constexpr Pair pairs[] = {
    {DType::f32, at::kFloat},
    {DType::f64, at::kDouble},
    {DType::f16, at::kHalf},
    {DType::bf16, at::kBFloat16},
    {DType::i64, at::kLong},
    {DType::i32, at::kInt},
    {DType::i16, at::kShort},
    {DType::i8, at::kChar},
    {DType::u8, at::kByte},
    {DType::boolean, at::kBool},
    {DType::u16, at::kUInt16},
    {DType::u32, at::kUInt32},
    {DType::u64, at::kUInt64},
    {DType::c64, at::kComplexFloat},
    {DType::c128, at::kComplexDouble},
    {DType::f8e4m3fn, at::kFloat8_e4m3fn},
    {DType::f8e4m3fnuz, at::kFloat8_e4m3fnuz},
    {DType::f8e5m2, at::kFloat8_e5m2},
    {DType::f8e5m2fnuz, at::kFloat8_e5m2fnuz},
    {DType::f8e8m0, at::kFloat8_e8m0fnu},
    // Not the types that LibTorch tells for what they lie in: those stand above.
    {DType::i4, at::kChar},
    {DType::u4, at::kByte},
    {DType::i2, at::kChar},
    {DType::u2, at::kByte},
};

/// Elements of 2 or 4 bits, the first in the lowest bits of its byte (ONNX's packing), to one number each: `number(code)`.
template <class T, class Number>
at::Tensor unpacked(const Tensor& tensor, std::int64_t count, c10::ScalarType type, Number number) {
  const int width = bits(tensor.dtype);
  const std::int64_t in_byte = 8 / width;
  at::Tensor out = at::empty(tensor.shape, at::TensorOptions().dtype(type));
  auto* to = out.mutable_data_ptr<T>();
  for (std::int64_t i = 0; i < count; ++i) {
    const auto byte = std::to_integer<unsigned>(tensor.bytes[static_cast<std::size_t>(i / in_byte)]);
    to[i] = number(byte >> (i % in_byte * width) & ((1U << width) - 1));
  }
  return out;
}

at::Tensor unpacked(const Tensor& tensor, std::int64_t count) {
  // Sign, two bits of exponent, one of mantissa: half steps of a subnormal below 1, then (2 + mantissa)·2^(exponent - 2).
  static constexpr float kSizes[] = {0, 0.5F, 1, 1.5F, 2, 3, 4, 6};
  const auto real = [](unsigned code) { return code & 8 ? -kSizes[code & 7] : kSizes[code]; };
  if (tensor.dtype == DType::f4e2m1) return unpacked<float>(tensor, count, at::kFloat, real);
  const auto natural = [](unsigned code) { return static_cast<std::uint8_t>(code); };
  if (tensor.dtype == DType::u4 || tensor.dtype == DType::u2) return unpacked<std::uint8_t>(tensor, count, at::kByte, natural);
  const unsigned sign = 1U << (bits(tensor.dtype) - 1);
  const auto with_sign = [=](unsigned code) {
    return static_cast<std::int8_t>(static_cast<int>(code ^ sign) - static_cast<int>(sign));
  };
  return unpacked<std::int8_t>(tensor, count, at::kChar, with_sign);
}

}  // namespace

c10::ScalarType scalar_type(DType type) {
  for (const Pair& pair : pairs)
    if (pair.graph == type) return pair.aten;
  throw_unsupported(fmt::format("element type {} cannot be computed with: LibTorch has no storage for it", to_string(type)));
}

DType dtype_of(c10::ScalarType type) {
  for (const Pair& pair : pairs)
    if (pair.aten == type) return pair.graph;
  throw_unsupported(fmt::format("LibTorch's element type {} has no counterpart in a graph", c10::toString(type)));
}

at::Tensor to_aten(const Tensor& tensor) {
  if (tensor.dtype == DType::string) throw_unsupported("a tensor of strings: strings are carried, not computed with");
  const std::int64_t count = tensor.count();
  if (count < 0 || byte_size(tensor.dtype, count) != tensor.bytes.size())
    throw_invalid(fmt::format("a tensor of {} {} elements has {} bytes", count, to_string(tensor.dtype), tensor.bytes.size()));
  if (bits(tensor.dtype) < 8) return unpacked(tensor, count);
  const auto options = at::TensorOptions().dtype(scalar_type(tensor.dtype));
  if (count == 0) return at::empty(tensor.shape, options);
  // Const is cast away for LibTorch's sake alone: nothing in the runner writes to a bound initializer.
  auto* data = const_cast<std::byte*>(tensor.bytes.data());
  const auto element = static_cast<std::uintptr_t>(bits(tensor.dtype) / 8);
  at::Tensor view = at::from_blob(
      data, tensor.shape, [owner = tensor.owner](void*) mutable { owner.reset(); }, options);
  return reinterpret_cast<std::uintptr_t>(data) % element == 0 ? view : view.clone();
}

Tensor from_aten(const at::Tensor& tensor) {
  if (!tensor.defined()) throw Error(ErrorCode::internal, "from_aten: undefined tensor");
  auto held = std::make_shared<at::Tensor>(tensor.detach().cpu().contiguous());
  Tensor out;
  out.dtype = dtype_of(held->scalar_type());
  out.shape.assign(held->sizes().begin(), held->sizes().end());
  out.bytes = {static_cast<const std::byte*>(held->const_data_ptr()), held->nbytes()};
  out.owner = std::move(held);
  return out;
}

}  // namespace espalier
