#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/complex.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/fft_fft.h>
#include <ATen/ops/fft_ifft.h>
#include <ATen/ops/fft_irfft.h>
#include <ATen/ops/fft_rfft.h>
#include <ATen/ops/view_as_real.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "run/op.h"
#include "run/tensor.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;

std::int64_t single(const RunView& v, std::size_t slot) {
  const auto values = v.integers(slot);
  if (values.size() != 1) v.fail(fmt::format("input {} is no single number", slot));
  return values[0];
}

std::int64_t length(const RunView& v, std::size_t slot) {
  const std::int64_t given = single(v, slot);
  if (given < 1 || given > std::int64_t{1} << 40) v.fail(fmt::format("input {} is {}, a length is needed", slot, given));
  return given;
}

/// [..., 1 or 2] as real or complex numbers.
at::Tensor joined(const RunView& v, const at::Tensor& x) {
  if (x.size(-1) == 1) return x.squeeze(-1);
  if (x.size(-1) != 2) v.fail(fmt::format("the last axis is {} long, neither 1 nor 2", x.size(-1)));
  return at::complex(x.select(-1, 0), x.select(-1, 1));
}

Results dft(const RunView& v) {
  const at::Tensor& x = v.in(0);
  if (x.dim() < 2) v.fail("the input has no axis for a signal and one for its parts");
  const std::int64_t given = v.opset() < 20 ? v.node.integer("axis", 1) : v.has(2) ? single(v, 2) : -2;
  const std::int64_t axis = v.wrap(given, x.dim());
  if (axis == x.dim() - 1) v.fail("the axis of the parts cannot be transformed");
  const bool one_sided = v.node.integer("onesided", 0) != 0, inverse = v.node.integer("inverse", 0) != 0;
  std::optional<std::int64_t> points;
  if (v.has(1)) points = length(v, 1);
  const at::Tensor signal = joined(v, x);
  if (one_sided && signal.is_complex() != inverse)
    v.fail(inverse ? "a one-sided inverse transform needs a complex input" : "a one-sided transform needs a real input");
  if (one_sided && inverse) return {at::fft_irfft(signal, points, axis).unsqueeze(-1)};
  if (one_sided) return {at::view_as_real(at::fft_rfft(signal, points, axis))};
  // The inverse of a real signal is the conjugate of something that LibTorch leaves for later.
  const at::Tensor made = inverse ? at::fft_ifft(signal, points, axis) : at::fft_fft(signal, points, axis);
  return {at::view_as_real(made.resolve_conj())};
}

Results stft(const RunView& v) {
  const at::Tensor& x = v.in(0);
  if (x.dim() != 3) v.fail(fmt::format("the signal has rank {}, expected 3", x.dim()));
  const bool one_sided = v.node.integer("onesided", 1) != 0;
  const std::int64_t step = length(v, 1);
  std::int64_t frame = x.size(1);
  if (v.has(2)) frame = v.in(2).numel();
  if (v.has(3)) {
    const std::int64_t asked = length(v, 3);
    if (v.has(2) && asked != frame) v.fail(fmt::format("frame_length is {}, the window has {} points", asked, frame));
    frame = asked;
  }
  if (frame < 1 || frame > x.size(1)) v.fail(fmt::format("a frame of {} does not fit a signal of {}", frame, x.size(1)));
  at::Tensor frames = joined(v, x).unfold(1, frame, step);
  if (v.has(2)) frames = frames * v.in(2).reshape({-1});
  if (one_sided && frames.is_complex()) v.refuse("a one-sided transform of a complex signal is not supported");
  return {at::view_as_real(one_sided ? at::fft_rfft(frames) : at::fft_fft(frames).resolve_conj())};
}

/// From f64, cut off where the type is an integer.
at::Tensor made(const RunView& v, const at::Tensor& values) {
  const auto type = static_cast<DType>(v.node.integer("output_datatype", static_cast<std::int64_t>(DType::f32)));
  return is_floating(type) ? values.to(v.compute) : values.to(at::kLong).to(scalar_type(type));
}

/// first + second · cos(2πn/N) + third · cos(4πn/N); N is one less than the size where the window is symmetric.
Results cosines(const RunView& v, double first, double second, double third) {
  const std::int64_t size = single(v, 0), points = v.node.integer("periodic", 1) != 0 ? size : size - 1;
  if (size < 0) v.fail(fmt::format("the size is {}", size));
  if (size == 1 && points == 0) v.refuse("a symmetric window of one point is not defined");
  const at::Tensor angle =
      at::arange(size, at::kDouble) * (2 * std::numbers::pi / static_cast<double>(std::max<std::int64_t>(points, 1)));
  return {made(v, at::cos(angle) * second + at::cos(angle * 2) * third + first)};
}

Results hann(const RunView& v) { return cosines(v, 0.5, -0.5, 0); }
Results hamming(const RunView& v) { return cosines(v, 25.0 / 46, -21.0 / 46, 0); }
Results blackman(const RunView& v) { return cosines(v, 0.42, -0.5, 0.08); }

/// Triangles between neighbours of points that lie evenly on the mel scale, rounded down to frequencies of the transform.
Results mel_weights(const RunView& v) {
  const std::int64_t bins = length(v, 0), points = length(v, 1), rate = length(v, 2), frequencies = points / 2 + 1;
  if (v.in(3).numel() != 1 || v.in(4).numel() != 1) v.fail("an edge is no single number");
  const auto mel = [](double hertz) { return 2595 * std::log1p(hertz / 700) / std::numbers::ln10; };
  const double low = mel(v.in(3).item<double>()), high = mel(v.in(4).item<double>());
  const double step = (high - low) / static_cast<double>(bins + 2);
  const auto frequency = [&](std::int64_t i) {
    const double hertz = 700 * std::expm1((low + step * static_cast<double>(i)) / 2595 * std::numbers::ln10);
    const double at = std::floor(static_cast<double>(points + 1) * hertz / static_cast<double>(rate));
    if (!(at >= 0 && at < static_cast<double>(frequencies))) v.fail("an edge lies beyond what the transform has");
    return static_cast<std::int64_t>(at);
  };
  at::Tensor weights = at::zeros({frequencies, bins}, at::kDouble);
  auto* weight = weights.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < bins; ++i) {
    const std::int64_t left = frequency(i), middle = frequency(i + 1), right = frequency(i + 2);
    if (left > middle || middle > right) v.fail("the upper edge lies below the lower one");
    for (std::int64_t k = left; k < middle; ++k)
      weight[k * bins + i] = static_cast<double>(k - left) / static_cast<double>(middle - left);
    weight[middle * bins + i] = 1;
    for (std::int64_t k = middle; k < right; ++k)
      weight[k * bins + i] = static_cast<double>(right - k) / static_cast<double>(right - middle);
  }
  return {made(v, weights)};
}

const RegisterRun entries[] = {{"", "DFT", dft},
                               {"", "STFT", stft},
                               {"", "HannWindow", hann},
                               {"", "HammingWindow", hamming},
                               {"", "BlackmanWindow", blackman},
                               {"", "MelWeightMatrix", mel_weights}};

}  // namespace
}  // namespace espalier
