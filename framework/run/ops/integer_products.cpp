/// Sums of products of codes are exact in f64, which has kernels where integers have none; they wrap around in 32 bits.
#include <ATen/TensorOperators.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/round.h>
#include <fmt/format.h>

#include "run/op.h"
#include "run/ops/convolve.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;

at::Tensor codes(const RunView& v, std::size_t slot) {
  const at::Tensor& given = v.in(slot);
  if (given.scalar_type() != at::kByte && given.scalar_type() != at::kChar)
    v.refuse(fmt::format("codes of {} are not supported", c10::toString(given.scalar_type())));
  return given.to(at::kDouble);
}

at::Tensor sums(const at::Tensor& exact) { return exact.to(at::kLong).to(at::kInt); }

/// One number for all, or one for each filter, along axis `axis` of a tensor of rank `rank`.
at::Tensor of_filters(const RunView& v, std::size_t slot, std::int64_t filters, std::int64_t axis, std::int64_t rank) {
  const at::Tensor given = v.in(slot).to(at::kDouble);
  if (given.numel() == 1) return given.reshape({});
  if (given.dim() != 1 || given.size(0) != filters) v.fail(fmt::format("input {} does not hold {} numbers", slot, filters));
  std::vector<std::int64_t> shape(static_cast<std::size_t>(rank), 1);
  shape[static_cast<std::size_t>(axis)] = filters;
  return given.reshape(shape);
}

at::Tensor one(const RunView& v, std::size_t slot) {
  if (v.in(slot).numel() != 1) v.fail(fmt::format("input {} is no single number", slot));
  return v.in(slot).to(at::kDouble).reshape({});
}

/// One number for all, one for each row of a matrix or (columns) one for each column.
at::Tensor of_lines(const RunView& v, std::size_t slot, const at::Tensor& matrix, bool rows) {
  const at::Tensor given = v.in(slot).to(at::kDouble);
  if (given.numel() == 1) return given.reshape({});
  if (matrix.dim() < 2) v.refuse("numbers for each row of a vector are not supported");
  const at::Tensor lines = given.dim() == 1 ? given.unsqueeze(rows ? 1 : 0) : given;
  const bool fits = lines.size(rows ? -2 : -1) == matrix.size(rows ? -2 : -1) && lines.size(rows ? -1 : -2) == 1;
  if (!fits) v.fail(fmt::format("input {} does not fit the matrix", slot));
  return lines;
}

/// Rounded to the nearest even code and saturated.
at::Tensor coded(const at::Tensor& values, const at::Tensor& zero) {
  const bool with_sign = zero.scalar_type() == at::kChar;
  const at::Tensor code = at::round(values) + zero.to(at::kDouble).reshape({});
  return at::clamp(code, with_sign ? -128 : 0, with_sign ? 127 : 255).to(at::kInt).to(zero.scalar_type());
}

at::Tensor convolved(const RunView& v, std::size_t zero_of_x, std::size_t weight, std::size_t zero_of_w) {
  at::Tensor x = codes(v, 0), w = codes(v, weight);
  if (v.has(zero_of_x)) x = x - one(v, zero_of_x);
  if (v.has(zero_of_w)) w = w - of_filters(v, zero_of_w, w.dim() > 0 ? w.size(0) : 0, 0, w.dim());
  return convolve(v, x, w, std::nullopt);
}

Results conv_integer(const RunView& v) { return {sums(convolved(v, 2, 1, 3))}; }

Results qlinear_conv(const RunView& v) {
  codes(v, 7);
  at::Tensor y = convolved(v, 2, 3, 5);
  const std::int64_t filters = y.size(1);
  if (v.has(8)) y = y + of_filters(v, 8, filters, 1, y.dim());
  const at::Tensor factor = one(v, 1) * of_filters(v, 4, filters, 1, y.dim()) / one(v, 6);
  one(v, 7);
  return {coded(y * factor, v.in(7))};
}

Results matmul_integer(const RunView& v) {
  at::Tensor a = codes(v, 0), b = codes(v, 1);
  if (v.has(2)) a = a - of_lines(v, 2, a, true);
  if (v.has(3)) b = b - of_lines(v, 3, b, false);
  return {sums(at::matmul(a, b))};
}

Results qlinear_matmul(const RunView& v) {
  codes(v, 7);
  one(v, 7);
  const at::Tensor a = codes(v, 0), b = codes(v, 3);
  const at::Tensor product = at::matmul(a - of_lines(v, 2, a, true), b - of_lines(v, 5, b, false));
  const at::Tensor scale_of_a = of_lines(v, 1, a, true), scale_of_b = of_lines(v, 4, b, false);
  if ((a.dim() < 2 || b.dim() < 2) && (scale_of_a.dim() > 0 || scale_of_b.dim() > 0))
    v.refuse("numbers for each row beside a vector are not supported");
  return {coded(product * (scale_of_a * scale_of_b / one(v, 6)), v.in(7))};
}

const RegisterRun entries[] = {{"", "ConvInteger", conv_integer},
                               {"", "QLinearConv", qlinear_conv},
                               {"", "MatMulInteger", matmul_integer},
                               {"", "QLinearMatMul", qlinear_matmul}};

}  // namespace
}  // namespace espalier
