#include "run/ops/narrow.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/frexp.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/round.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <limits>

#include "sdk/error.h"

namespace espalier::ops {
namespace {

struct Format {
  int mantissa;      ///< bits of it, without the hidden one
  int lowest;        ///< exponent of the smallest normal number
  double largest;    ///< finite
  bool infinite;     ///< has infinities
  bool signed_zero;  ///< has -0
};

Format format_of(DType type) {
  switch (type) {
    case DType::f8e4m3fn:
      return {3, -6, 448, false, true};
    case DType::f8e4m3fnuz:
      return {3, -7, 240, false, false};
    case DType::f8e5m2:
      return {2, -14, 57344, true, true};
    case DType::f8e5m2fnuz:
      return {2, -15, 57344, false, false};
    case DType::f4e2m1:
      return {1, 0, 6, false, true};
    default:
      throw Error(ErrorCode::internal, "no narrow floating type: " + std::string(to_string(type)));
  }
}

constexpr double kNan = std::numeric_limits<double>::quiet_NaN(), kInfinity = std::numeric_limits<double>::infinity();

/// In f64, which holds every step exactly, whatever the type that is computed in.
at::Tensor rounded(const at::Tensor& x, const Format& format) {
  // Twice the largest is too large, too, and has a small exponent.
  const at::Tensor wide = at::clamp(x.to(at::kDouble), -2 * format.largest, 2 * format.largest);
  const at::Tensor exponent = at::clamp_min(std::get<1>(at::frexp(wide)) - 1, format.lowest) - format.mantissa;
  const at::Tensor unit = at::pow(2.0, exponent.to(at::kDouble));
  return at::round(wide / unit) * unit;
}

}  // namespace

at::Tensor rounded_to(const at::Tensor& x, DType type, bool saturate) {
  const Format format = format_of(type);
  at::Tensor out = rounded(x.detach(), format);
  if (saturate || type == DType::f4e2m1) {
    out = at::clamp(out, -format.largest, format.largest);
  } else {
    out = out.masked_fill(out.gt(format.largest), format.infinite ? kInfinity : kNan)
              .masked_fill(out.lt(-format.largest), format.infinite ? -kInfinity : kNan);
  }
  if (type == DType::f4e2m1) out = out.masked_fill(out.isnan(), 0);  // as in ONNX's own cases
  if (!format.signed_zero) out = out + 0.0;
  out = out.to(x.scalar_type());
  if (!c10::GradMode::is_enabled() || !x.requires_grad()) return out;
  const at::Tensor inside = at::clamp(x, -format.largest, format.largest);
  return out + (inside - inside.detach());
}

at::Tensor power_of_two(const at::Tensor& x, const std::string& mode, bool saturate) {
  constexpr int bound = 127;
  const double least = std::ldexp(1.0, -bound);
  const at::Tensor wide = x.detach().to(at::kDouble);
  // wide = fraction·2^exponent with a fraction of at least a half: the power below is 2^(exponent - 1).
  const auto [fraction, exponent] = at::frexp(at::clamp(wide, least, kInfinity));
  at::Tensor power = exponent.to(at::kDouble) - 1;
  if (mode == "up") power = power + fraction.gt(0.5);
  if (mode == "nearest") power = power + fraction.ge(0.75);
  power = power.masked_fill(wide.isinf(), bound + 1);
  at::Tensor out = at::pow(2.0, at::clamp(power, -bound, bound));
  if (!saturate) out = out.masked_fill(power.gt(bound).logical_or(wide.lt(least)), kNan);
  return out.masked_fill(wide.lt(0).logical_or(wide.isnan()), kNan).to(x.scalar_type());
}

}  // namespace espalier::ops
