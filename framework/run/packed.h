#pragma once
/// Weights of a product kept as they are stored (16-bit floats, integer codes) and multiplied without being widened as a whole:
/// decoding reads every weight once a token, so bytes are time.
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace espalier {

/// One matrix, row n holding what output n is summed with. What it holds is shared, never written.
struct PackedMatrix {
  /// How an element lies in `rows`. i8 is a signed code; i4 two codes a byte, in blocks of 16: byte j has element j in its low half
  /// and j + 8 in its high one, both shifted by 8 to be unsigned.
  enum class Kind { f32, f16, bf16, i8, i4 };
  Kind kind = Kind::f32;
  std::int64_t outputs = 0, inputs = 0;
  std::int64_t group = 0;  ///< inputs that share a scale; divides `inputs` (and by 16 for i4)
  at::Tensor rows;         ///< [outputs, inputs], i4: [outputs, inputs / 2]; f16 and bf16 as their bits
  at::Tensor scale;        ///< f32 [outputs, inputs / group], for codes
  at::Tensor zero;         ///< f32 like `scale`, or undefined
};

/// x [m, inputs] f32, contiguous → [m, outputs] f32. A few rows (decoding) are multiplied in f32 straight from the stored form; for
/// many (a prompt) pieces of the matrix are widened and LibTorch multiplies. Not differentiable.
at::Tensor multiply(const at::Tensor& x, const PackedMatrix& weight);

/// Rows by number, widened: numbers i64 of any shape → [..., inputs] f32. Negative numbers count from the end. Throws
/// Error(invalid_input) for a number out of range.
at::Tensor rows(const at::Tensor& numbers, const PackedMatrix& weight);

}  // namespace espalier
