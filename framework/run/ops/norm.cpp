#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/native_layer_norm.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "run/op.h"
#include "run/parallel.h"

namespace espalier {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Results = std::vector<at::Tensor>;

/// The normalized axes' lengths: from `axis` to the last one.
std::vector<std::int64_t> normalized(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const std::int64_t axis = v.axis("axis", -1, x.dim());
  return {x.sizes().begin() + axis, x.sizes().end()};
}

/// Changes along normalized axes only.
bool inner(const at::Tensor& t, const std::vector<std::int64_t>& shape) {
  return t.dim() <= static_cast<std::int64_t>(shape.size());
}

/// Scale and bias may broadcast; LibTorch wants them whole.
at::Tensor whole(const at::Tensor& t, const std::vector<std::int64_t>& shape) {
  return t.sizes() == at::IntArrayRef(shape) ? t : t.expand(shape).contiguous();
}

constexpr int lanes = 16;

/// Σ of[i] for i below `width`: lanes in their own precision, which compilers turn into vectors, then one sum in f64.
template <class Term>
double row_sum(std::int64_t width, Term of) {
  decltype(of(0)) sums[lanes] = {};
  std::int64_t i = 0;
  for (; i + lanes <= width; i += lanes)
    for (int lane = 0; lane < lanes; ++lane) sums[lane] += of(i + lane);
  double sum = 0;
  for (const auto each : sums) sum += static_cast<double>(each);
  for (; i < width; ++i) sum += static_cast<double>(of(i));
  return sum;
}

/// x of [rows, width] and the scale of [width]: one pass over the rows, where the composite in LibTorch makes six. `factors`, when
/// given, takes 1 / root mean square of each row.
template <class T>
at::Tensor rms_rows(const at::Tensor& x, const at::Tensor& scale, double epsilon, T* factors = nullptr) {
  const std::int64_t width = scale.numel(), rows = x.numel() / width;
  at::Tensor out = at::empty_like(x, at::MemoryFormat::Contiguous);
  const T *from = x.const_data_ptr<T>(), *gain = scale.const_data_ptr<T>();
  T* to = out.mutable_data_ptr<T>();
  parallel_for(0, rows, 1 + 16384 / width, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const T* in = from + row * width;
      T* result = to + row * width;
      const double squares = row_sum(width, [in](std::int64_t i) { return in[i] * in[i]; });
      const auto factor = static_cast<T>(1 / std::sqrt(squares / static_cast<double>(width) + epsilon));
      for (std::int64_t j = 0; j < width; ++j) result[j] = in[j] * factor * gain[j];
      if (factors) factors[row] = factor;
    }
  });
  return out;
}

/// With r = 1 / root mean square of a row x of n elements, and the slope d of its result: ∂x = r·(d·g) - x·r³/n·Σ(d·g·x) and
/// ∂g = Σ over rows of d·x·r. Rows are summed in pieces of a fixed size, so that the number of threads changes nothing.
template <class T>
std::pair<at::Tensor, at::Tensor> rms_slopes(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& factors,
                                             const at::Tensor& slopes) {
  constexpr std::int64_t piece = 64;
  const std::int64_t width = scale.numel(), rows = x.numel() / width, pieces = (rows + piece - 1) / piece;
  at::Tensor of_x = at::empty_like(x, at::MemoryFormat::Contiguous), of_scale = at::zeros({pieces, width}, scale.options());
  const T *from = x.const_data_ptr<T>(), *gain = scale.const_data_ptr<T>(), *factor = factors.const_data_ptr<T>(),
          *given = slopes.const_data_ptr<T>();
  T *to = of_x.mutable_data_ptr<T>(), *sums = of_scale.mutable_data_ptr<T>();
  parallel_for(0, pieces, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin * piece; row < std::min(end * piece, rows); ++row) {
      const T *in = from + row * width, *slope = given + row * width, r = factor[row];
      const double dot = row_sum(width, [=](std::int64_t i) { return slope[i] * gain[i] * in[i]; });
      const T back = static_cast<T>(dot / static_cast<double>(width)) * r * r * r;
      T *result = to + row * width, *sum = sums + row / piece * width;
      for (std::int64_t j = 0; j < width; ++j) {
        result[j] = slope[j] * gain[j] * r - in[j] * back;
        sum[j] += slope[j] * in[j] * r;
      }
    }
  });
  return {of_x, of_scale.sum(0).reshape(scale.sizes())};
}

/// Keeps its input and one number a row for the backward pass; the composite keeps the normalized rows beside them.
struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& scale, double epsilon) {
    at::Tensor factors = at::empty({x.numel() / scale.numel()}, x.options()), out;
    if (x.scalar_type() == at::kDouble) {
      out = rms_rows(x, scale, epsilon, factors.mutable_data_ptr<double>());
    } else {
      out = rms_rows(x, scale, epsilon, factors.mutable_data_ptr<float>());
    }
    context->save_for_backward({x, scale, factors});
    return out;
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor slopes = gradients[0].contiguous();
    const auto back = slopes.scalar_type() == at::kDouble ? rms_slopes<double> : rms_slopes<float>;
    auto [of_x, of_scale] = back(saved[0], saved[1], saved[2], slopes);
    return {of_x, of_scale, {}};
  }
};

/// What the loops above read: rows one behind the other, in f32 or f64.
bool plain(const at::Tensor& t) {
  return t.device().is_cpu() && t.is_contiguous() && (t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble);
}

Results rms_normalization(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const std::vector<std::int64_t> shape = normalized(v);
  const double epsilon = v.node.number("epsilon", 1e-5);
  if (!inner(v.in(1), shape)) return {at::rms_norm(x, shape, std::nullopt, epsilon) * v.in(1)};
  const at::Tensor scale = whole(v.in(1), shape);
  if (!plain(x) || !plain(scale) || x.scalar_type() != scale.scalar_type() || x.numel() == 0)
    return {at::rms_norm(x, shape, scale, epsilon)};
  if (c10::GradMode::is_enabled() && (x.requires_grad() || scale.requires_grad())) return {RmsNorm::apply(x, scale, epsilon)};
  return {x.scalar_type() == at::kDouble ? rms_rows<double>(x, scale, epsilon) : rms_rows<float>(x, scale, epsilon)};
}

/// Outputs: the result, and the mean and inverse deviation of each row.
Results layer_normalization(const RunView& v) {
  const std::vector<std::int64_t> shape = normalized(v);
  const double epsilon = v.node.number("epsilon", 1e-5);
  if (!inner(v.in(1), shape) || (v.has(2) && !inner(v.in(2), shape))) {
    auto [y, mean, deviation] = at::native_layer_norm(v.in(0), shape, std::nullopt, std::nullopt, epsilon);
    y = y * v.in(1);
    return {v.has(2) ? y + v.in(2) : y, mean, deviation};
  }
  std::optional<at::Tensor> bias;
  if (v.has(2)) bias = whole(v.in(2), shape);
  auto [y, mean, deviation] = at::native_layer_norm(v.in(0), shape, whole(v.in(1), shape), bias, epsilon);
  return {y, mean, deviation};
}

const RegisterRun entries[] = {{"", "RMSNormalization", rms_normalization}, {"", "LayerNormalization", layer_normalization}};

}  // namespace
}  // namespace espalier
