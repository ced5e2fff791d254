#include "run/packed.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "run/parallel.h"
#include "sdk/error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace espalier {
namespace {

using Kind = PackedMatrix::Kind;

/// Row `n` of a matrix, as kernels read it.
struct Row {
  const std::byte* data;
  const float *scale, *zero;
};

std::int64_t row_bytes(const PackedMatrix& w) {
  switch (w.kind) {
    case Kind::f32:
      return w.inputs * 4;
    case Kind::f16:
    case Kind::bf16:
      return w.inputs * 2;
    case Kind::i8:
      return w.inputs;
    case Kind::i4:
      return w.inputs / 2;
  }
  return 0;
}

class Rows {
 public:
  explicit Rows(const PackedMatrix& w)
      : data_(static_cast<const std::byte*>(w.rows.const_data_ptr())),
        scale_(w.scale.defined() ? w.scale.const_data_ptr<float>() : nullptr),
        zero_(w.zero.defined() ? w.zero.const_data_ptr<float>() : nullptr),
        bytes_(row_bytes(w)),
        groups_(w.group > 0 ? w.inputs / w.group : 0) {}
  Row operator[](std::int64_t n) const {
    return {data_ + n * bytes_, scale_ ? scale_ + n * groups_ : nullptr, zero_ ? zero_ + n * groups_ : nullptr};
  }

 private:
  const std::byte* data_;
  const float *scale_, *zero_;
  std::int64_t bytes_, groups_;
};

/// Element `k` of a row before its scale.
float element(Kind kind, const std::byte* data, std::int64_t k) {
  switch (kind) {
    case Kind::f32:
      return reinterpret_cast<const float*>(data)[k];
    case Kind::f16:
      return static_cast<float>(reinterpret_cast<const c10::Half*>(data)[k]);
    case Kind::bf16:
      return static_cast<float>(reinterpret_cast<const c10::BFloat16*>(data)[k]);
    case Kind::i8:
      return static_cast<float>(reinterpret_cast<const std::int8_t*>(data)[k]);
    case Kind::i4: {
      const auto byte = std::to_integer<int>(data[k / 16 * 8 + k % 8]);
      return static_cast<float>((k % 16 < 8 ? byte & 15 : byte >> 4) - 8);
    }
  }
  return 0;
}

/// Sum of x[k] · row[k] · scale of its group; zero points are left out.
using Dot = float (*)(const Row& row, const float* x, std::int64_t inputs, std::int64_t group);

template <Kind kind>
float dot_plain(const Row& row, const float* x, std::int64_t inputs, std::int64_t group) {
  float sum = 0;
  for (std::int64_t from = 0; from < inputs; from += group) {
    float part = 0;
    for (std::int64_t k = from; k < from + group; ++k) part += x[k] * element(kind, row.data, k);
    sum += row.scale ? row.scale[from / group] * part : part;
  }
  return sum;
}

#if defined(__x86_64__)
#define ESPALIER_AVX2 __attribute__((target("avx2,fma,f16c")))

template <Kind kind>
ESPALIER_AVX2 inline __m256 eight(const std::byte* row, std::int64_t k) {
  if constexpr (kind == Kind::f32) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(row) + k);
  } else if constexpr (kind == Kind::f16) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row + 2 * k)));
  } else if constexpr (kind == Kind::bf16) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row + 2 * k)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  } else {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(row + k))));
  }
}

ESPALIER_AVX2 inline float total(__m256 sum) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

/// Groups are scaled as vectors and summed up once a row.
template <Kind kind>
ESPALIER_AVX2 float dot_avx2(const Row& row, const float* x, std::int64_t inputs, std::int64_t group) {
  __m256 sum = _mm256_setzero_ps();
  float rest = 0;
  for (std::int64_t from = 0; from < inputs; from += group) {
    __m256 a = _mm256_setzero_ps(), b = a, c = a, d = a;
    const float scale = row.scale ? row.scale[from / group] : 1;
    const std::int64_t to = from + group;
    std::int64_t k = from;
    if constexpr (kind == Kind::i4) {
      const __m256i low = _mm256_set1_epi32(15), shift = _mm256_set1_epi32(8);
      for (; k + 16 <= to; k += 16) {
        const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(row.data + k / 2)));
        const __m256 first = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_and_si256(bytes, low), shift));
        const __m256 second = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32(bytes, 4), shift));
        a = _mm256_fmadd_ps(first, _mm256_loadu_ps(x + k), a);
        b = _mm256_fmadd_ps(second, _mm256_loadu_ps(x + k + 8), b);
      }
    } else {
      for (; k + 32 <= to; k += 32) {
        a = _mm256_fmadd_ps(eight<kind>(row.data, k), _mm256_loadu_ps(x + k), a);
        b = _mm256_fmadd_ps(eight<kind>(row.data, k + 8), _mm256_loadu_ps(x + k + 8), b);
        c = _mm256_fmadd_ps(eight<kind>(row.data, k + 16), _mm256_loadu_ps(x + k + 16), c);
        d = _mm256_fmadd_ps(eight<kind>(row.data, k + 24), _mm256_loadu_ps(x + k + 24), d);
      }
      for (; k + 8 <= to; k += 8) a = _mm256_fmadd_ps(eight<kind>(row.data, k), _mm256_loadu_ps(x + k), a);
    }
    const __m256 part = _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d));
    sum = _mm256_fmadd_ps(part, _mm256_set1_ps(scale), sum);
    for (; k < to; ++k) rest += scale * x[k] * element(kind, row.data, k);
  }
  return total(sum) + rest;
}

/// (element − zero) · scale of one group, widened.
template <Kind kind>
ESPALIER_AVX2 void widen_avx2(const std::byte* row, float scale, float zero, std::int64_t from, std::int64_t to, float* out) {
  const __m256 factor = _mm256_set1_ps(scale), centre = _mm256_set1_ps(zero);
  std::int64_t k = from;
  if constexpr (kind != Kind::i4)
    for (; k + 8 <= to; k += 8) _mm256_storeu_ps(out + k, _mm256_mul_ps(_mm256_sub_ps(eight<kind>(row, k), centre), factor));
  for (; k < to; ++k) out[k] = (element(kind, row, k) - zero) * scale;
}

bool has_avx2() {
  static const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  return has;
}
#endif

template <Kind kind>
void widen_plain(const std::byte* row, float scale, float zero, std::int64_t from, std::int64_t to, float* out) {
  for (std::int64_t k = from; k < to; ++k) out[k] = (element(kind, row, k) - zero) * scale;
}

struct Kernels {
  Dot dot;
  void (*widen)(const std::byte*, float, float, std::int64_t, std::int64_t, float*);
};

template <Kind kind>
Kernels kernels_of() {
#if defined(__x86_64__)
  if (has_avx2()) return {dot_avx2<kind>, widen_avx2<kind>};
#endif
  return {dot_plain<kind>, widen_plain<kind>};
}

Kernels kernels(Kind kind) {
  switch (kind) {
    case Kind::f32:
      return kernels_of<Kind::f32>();
    case Kind::f16:
      return kernels_of<Kind::f16>();
    case Kind::bf16:
      return kernels_of<Kind::bf16>();
    case Kind::i8:
      return kernels_of<Kind::i8>();
    case Kind::i4:
      return kernels_of<Kind::i4>();
  }
  return kernels_of<Kind::f32>();
}

void widen_row(const PackedMatrix& w, const Kernels& kernel, const Row& row, float* out) {
  if (!row.scale) return kernel.widen(row.data, 1, 0, 0, w.inputs, out);
  for (std::int64_t g = 0, from = 0; from < w.inputs; ++g, from += w.group)
    kernel.widen(row.data, row.scale[g], row.zero ? row.zero[g] : 0, from, from + w.group, out);
}

/// A few rows of x: each weight is read once for all of them.
void multiply_few(const float* x, std::int64_t m, const PackedMatrix& w, float* y) {
  const Kernels kernel = kernels(w.kind);
  const Rows weights(w);
  const std::int64_t groups = w.scale.defined() ? w.inputs / w.group : 0;
  std::vector<float> sums;  // of x, by row and group: a zero point takes its multiple of them away
  if (w.zero.defined()) {
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t g = 0; g < groups; ++g) {
        double sum = 0;
        for (std::int64_t k = g * w.group; k < (g + 1) * w.group; ++k) sum += x[i * w.inputs + k];
        sums.push_back(static_cast<float>(sum));
      }
  }
  parallel_for(0, w.outputs, 1 + 32768 / std::max<std::int64_t>(w.inputs, 1), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      const Row row = weights[n];
      for (std::int64_t i = 0; i < m; ++i) {
        const float* in = x + i * w.inputs;
        float sum = kernel.dot(row, in, w.inputs, groups > 0 ? w.group : w.inputs);
        for (std::int64_t g = 0; row.zero && g < groups; ++g)
          sum -= row.scale[g] * row.zero[g] * sums[static_cast<std::size_t>(i * groups + g)];
        y[i * w.outputs + n] = sum;
      }
    }
  });
}

/// Many rows of x: about 4 MB of the matrix at a time is widened, while it is still in the cache LibTorch multiplies with it.
at::Tensor multiply_many(const at::Tensor& x, const PackedMatrix& w) {
  if (w.kind == Kind::f32) return at::linear(x, w.rows);
  const std::int64_t piece = std::clamp<std::int64_t>((1 << 20) / w.inputs, 1, w.outputs);
  const Kernels kernel = kernels(w.kind);
  const Rows weights(w);
  at::Tensor out = at::empty({x.size(0), w.outputs}, x.options()), wide = at::empty({piece, w.inputs}, x.options());
  float* to = wide.mutable_data_ptr<float>();
  for (std::int64_t start = 0; start < w.outputs; start += piece) {
    const std::int64_t count = std::min(piece, w.outputs - start);
    parallel_for(0, count, 1 + 32768 / w.inputs, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t n = begin; n < end; ++n) widen_row(w, kernel, weights[start + n], to + n * w.inputs);
    });
    at::Tensor part = out.narrow(1, start, count);
    at::mm_out(part, x, wide.narrow(0, 0, count).t());
  }
  return out;
}

}  // namespace

at::Tensor multiply(const at::Tensor& x, const PackedMatrix& weight) {
  constexpr std::int64_t few = 8;
  if (x.size(0) > few) return multiply_many(x, weight);
  at::Tensor out = at::empty({x.size(0), weight.outputs}, x.options());
  multiply_few(x.const_data_ptr<float>(), x.size(0), weight, out.mutable_data_ptr<float>());
  return out;
}

at::Tensor rows(const at::Tensor& numbers, const PackedMatrix& weight) {
  const at::Tensor flat = numbers.to(at::kLong).contiguous();
  std::vector<std::int64_t> shape = numbers.sizes().vec();
  shape.push_back(weight.inputs);
  at::Tensor out = at::empty(shape, at::TensorOptions().dtype(at::kFloat));
  const Kernels kernel = kernels(weight.kind);
  const Rows matrix(weight);
  const auto* number = flat.const_data_ptr<std::int64_t>();
  float* to = out.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < flat.numel(); ++i) {
    const std::int64_t n = number[i] < 0 ? number[i] + weight.outputs : number[i];
    if (n < 0 || n >= weight.outputs) throw_invalid(fmt::format("index {} is outside {} rows", number[i], weight.outputs));
    widen_row(weight, kernel, matrix[n], to + i * weight.inputs);
  }
  return out;
}

}  // namespace espalier
