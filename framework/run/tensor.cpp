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
};

/// Two elements a byte, the first in the low half (ONNX's packing), to one int8 or uint8 each.
at::Tensor unpack_nibbles(const Tensor& tensor, std::int64_t count) {
  const bool with_sign = tensor.dtype == DType::i4;
  at::Tensor out = at::empty(tensor.shape, at::TensorOptions().dtype(with_sign ? at::kChar : at::kByte));
  auto* to = static_cast<std::uint8_t*>(out.mutable_data_ptr());
  for (std::int64_t i = 0; i < count; ++i) {
    const auto byte = std::to_integer<std::uint8_t>(tensor.bytes[static_cast<std::size_t>(i / 2)]);
    const std::uint8_t nibble = i % 2 == 0 ? byte & 15 : byte >> 4;
    to[i] = with_sign ? static_cast<std::uint8_t>(static_cast<std::int8_t>(nibble << 4) >> 4) : nibble;
  }
  return out;
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
  const std::int64_t count = tensor.count();
  if (count < 0 || byte_size(tensor.dtype, count) != tensor.bytes.size())
    throw_invalid(fmt::format("a tensor of {} {} elements has {} bytes", count, to_string(tensor.dtype), tensor.bytes.size()));
  if (bits(tensor.dtype) == 4) return unpack_nibbles(tensor, count);
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
