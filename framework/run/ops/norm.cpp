#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/native_layer_norm.h>
#include <ATen/ops/rms_norm.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <cmath>

#include "run/op.h"
#include "run/parallel.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;

/// The normalized axes' lengths: from `axis` to the last one.
std::vector<std::int64_t> normalized(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const std::int64_t axis = v.axis("axis", -1, x.dim());
  return {x.sizes().begin() + axis, x.sizes().end()};
}

/// Scale and bias may broadcast; LibTorch wants them whole.
at::Tensor whole(const at::Tensor& t, const std::vector<std::int64_t>& shape) {
  return t.sizes() == at::IntArrayRef(shape) ? t : t.expand(shape).contiguous();
}

/// One pass over the rows, where no gradient is wanted: the composite in LibTorch makes six.
at::Tensor rms_rows(const at::Tensor& x, const at::Tensor& scale, double epsilon) {
  const std::int64_t width = scale.numel(), rows = x.numel() / width;
  at::Tensor out = at::empty_like(x, at::MemoryFormat::Contiguous);
  const float *from = x.const_data_ptr<float>(), *gain = scale.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  parallel_for(0, rows, 1 + 16384 / width, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const float* in = from + row * width;
      float* result = to + row * width;
      constexpr int lanes = 16;
      float sums[lanes] = {};
      std::int64_t i = 0;
      for (; i + lanes <= width; i += lanes)
        for (int lane = 0; lane < lanes; ++lane) sums[lane] += in[i + lane] * in[i + lane];
      double sum = 0;
      for (float each : sums) sum += each;
      for (; i < width; ++i) sum += static_cast<double>(in[i]) * in[i];
      const auto factor = static_cast<float>(1 / std::sqrt(sum / static_cast<double>(width) + epsilon));
      for (std::int64_t j = 0; j < width; ++j) result[j] = in[j] * factor * gain[j];
    }
  });
  return out;
}

Results rms_normalization(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const std::vector<std::int64_t> shape = normalized(v);
  const at::Tensor scale = whole(v.in(1), shape);
  const double epsilon = v.node.number("epsilon", 1e-5);
  const bool grad = c10::GradMode::is_enabled() && (x.requires_grad() || scale.requires_grad());
  if (!grad && x.device().is_cpu() && x.scalar_type() == at::kFloat && scale.scalar_type() == at::kFloat && x.is_contiguous() &&
      scale.is_contiguous() && x.numel() > 0)
    return {rms_rows(x, scale, epsilon)};
  return {at::rms_norm(x, shape, scale, epsilon)};
}

/// Outputs: the result, and the mean and inverse deviation of each row.
Results layer_normalization(const RunView& v) {
  const std::vector<std::int64_t> shape = normalized(v);
  std::optional<at::Tensor> bias;
  if (v.has(2)) bias = whole(v.in(2), shape);
  auto [y, mean, deviation] = at::native_layer_norm(v.in(0), shape, whole(v.in(1), shape), bias, v.node.number("epsilon", 1e-5));
  return {y, mean, deviation};
}

const RegisterRun entries[] = {{"", "RMSNormalization", rms_normalization}, {"", "LayerNormalization", layer_normalization}};

}  // namespace
}  // namespace espalier
