#include "run/rounding.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "run/parallel.h"
#include "sdk/error.h"

namespace espalier {
namespace {

/// The elements of one share: `outer` runs of `count` elements, `stride` apart.
struct Layout {
  std::int64_t shares = 1, outer = 1, outer_stride = 0, count = 0, stride = 1;
  std::int64_t length = 0, blocks = 1, inner = 1, block = 0;

  Layout(const std::vector<std::int64_t>& shape, std::int64_t elements, const Sharing& sharing) : count(elements) {
    if (!sharing.axis) return;
    std::int64_t before = 1;
    for (std::size_t d = 0; d < *sharing.axis; ++d) before *= shape[d];
    for (std::size_t d = *sharing.axis + 1; d < shape.size(); ++d) inner *= shape[d];
    length = shape[*sharing.axis];
    if (sharing.block > 0) {
      block = sharing.block;
      blocks = (length + block - 1) / block;
      shares = before * blocks * inner;
      stride = inner;
    } else {
      shares = length;
      outer = before;
      outer_stride = length * inner;
      count = inner;
    }
  }
  std::int64_t first(std::int64_t share) const {
    if (block == 0) return share * count;
    return (share / inner / blocks * length + share / inner % blocks * block) * inner + share % inner;
  }
  std::int64_t run(std::int64_t share) const {
    return block == 0 ? count : std::min(block, length - share / inner % blocks * block);
  }
  template <class Visit>
  void each(std::int64_t share, Visit visit) const {
    const std::int64_t start = first(share), n = run(share);
    for (std::int64_t o = 0; o < outer; ++o)
      for (std::int64_t k = 0; k < n; ++k) visit(start + o * outer_stride + k * stride);
  }
};

float in_type(DType type, double value) {
  const auto single = static_cast<float>(value);
  if (type == DType::f16) return static_cast<float>(c10::Half(single));
  if (type == DType::bf16) return static_cast<float>(c10::BFloat16(single));
  return single;
}

struct Step {
  float scale = 1;
  float zero = 0;
};

/// The grid's step and zero point for values between `least` and `most`, rounded to the weight's type.
Step step_for(const Grid& grid, DType type, double least, double most) {
  Step step;
  if (grid.symmetric) {
    step.scale = in_type(type, std::max(-least, most) / grid.high());
  } else {
    least = std::min(least, 0.0);
    most = std::max(most, 0.0);
    step.scale = in_type(type, (most - least) / grid.high());
  }
  // Nothing but zeros, or so small that runtimes, which flush subnormal numbers, would not see the scale.
  const double smallest = type == DType::f16 ? 0x1p-24 : std::numeric_limits<float>::min();
  if (!(step.scale >= smallest)) step.scale = 1;
  if (!grid.symmetric) step.zero = static_cast<float>(std::clamp(std::nearbyint(-least / step.scale), 0.0, grid.high()));
  return step;
}

/// Adding and taking away 1.5 · 2^23 rounds half to even, in a form that compilers vectorize.
float squared_error(const std::vector<float>& values, const Grid& grid, const Step& step) {
  constexpr float magic = 12582912.0f;
  const float inverse = 1 / step.scale, low = static_cast<float>(grid.low()), high = static_cast<float>(grid.high());
  constexpr std::size_t lanes = 8;
  float sums[lanes] = {};
  std::size_t i = 0;
  const auto term = [&](float w) {
    const float code = std::min(std::max((w * inverse + magic) - magic + step.zero, low), high);
    const float off = (code - step.zero) * step.scale - w;
    return off * off;
  };
  for (; i + lanes <= values.size(); i += lanes)
    for (std::size_t lane = 0; lane < lanes; ++lane) sums[lane] += term(values[i + lane]);
  float sum = 0;
  for (; i < values.size(); ++i) sum += term(values[i]);
  for (const float each : sums) sum += each;
  return sum;
}

/// Ranges from the whole one down to 40 % of it; the first of equals wins, so a grid that the weight lies on is found.
Step searched(const std::vector<float>& values, const Grid& grid, DType type, double least, double most) {
  constexpr int steps = 24;
  Step best = step_for(grid, type, least, most);
  float error = squared_error(values, grid, best);
  for (int i = 1; i <= steps && error > 0; ++i) {
    const double share = 1 - 0.6 * i / steps;
    const Step candidate = step_for(grid, type, least * share, most * share);
    if (const float other = squared_error(values, grid, candidate); other < error) {
      best = candidate;
      error = other;
    }
  }
  return best;
}

std::vector<std::byte> packed(const std::vector<std::int8_t>& codes, int bits) {
  const auto* bytes = reinterpret_cast<const std::byte*>(codes.data());
  if (bits == 8) return {bytes, bytes + codes.size()};
  std::vector<std::byte> out((codes.size() + 1) / 2);
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const auto nibble = static_cast<std::byte>(codes[i] & 15);  // the first in the low half, as ONNX packs
    out[i / 2] |= i % 2 == 0 ? nibble : nibble << 4;
  }
  return out;
}

}  // namespace

DType Grid::code_type() const {
  if (bits == 4) return symmetric ? DType::i4 : DType::u4;
  return symmetric ? DType::i8 : DType::u8;
}
double Grid::low() const {
  if (!symmetric) return 0;
  return bits == 4 ? -8 : -high();
}
double Grid::high() const {
  if (bits == 4) return symmetric ? 7 : 15;
  return symmetric ? (reduced ? 63 : 127) : (reduced ? 127 : 255);
}

std::vector<std::int64_t> Sharing::shape(const std::vector<std::int64_t>& weight) const {
  if (!axis) return {};
  if (block == 0) return {weight[*axis]};
  auto out = weight;
  out[*axis] = (out[*axis] + block - 1) / block;
  return out;
}

Rounded round_to_grid(const std::string& name, const Tensor& weight, const Grid& grid, const Sharing& sharing) {
  std::vector<float> widened;
  if (weight.dtype != DType::f32) {
    for (const double value : weight.numbers()) widened.push_back(static_cast<float>(value));
  }
  const float* values = widened.empty() && weight.count() > 0 ? weight.as<float>().data() : widened.data();
  const Layout layout(weight.shape, weight.count(), sharing);
  std::vector<float> scales(static_cast<std::size_t>(layout.shares));
  std::vector<std::int8_t> zeros(scales.size()), codes(static_cast<std::size_t>(weight.count()));
  std::vector<double> errors(scales.size()), squares(scales.size());
  std::atomic<bool> finite = true;
  const std::int64_t grain = 1 + 65536 * layout.shares / std::max<std::int64_t>(weight.count(), 1);
  parallel_for(0, layout.shares, grain, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> share;
    for (std::int64_t s = begin; s < end; ++s) {
      share.clear();
      layout.each(s, [&](std::int64_t i) { share.push_back(values[i]); });
      float least = 0, most = 0;
      for (const float w : share) {
        if (!std::isfinite(w)) finite = false;
        least = std::min(least, w);
        most = std::max(most, w);
      }
      if (!finite) return;
      const Step step = grid.search ? searched(share, grid, weight.dtype, least, most) : step_for(grid, weight.dtype, least, most);
      const auto at = static_cast<std::size_t>(s);
      scales[at] = step.scale;
      zeros[at] = static_cast<std::int8_t>(static_cast<int>(step.zero));
      layout.each(s, [&](std::int64_t i) {
        const double w = values[i], scale = step.scale, zero = step.zero;
        const double code = std::clamp(std::nearbyint(w / scale) + zero, grid.low(), grid.high());
        codes[static_cast<std::size_t>(i)] = static_cast<std::int8_t>(static_cast<int>(code));
        const double off = (code - zero) * scale - w;
        errors[at] += off * off;
        squares[at] += w * w;
      });
    }
  });
  if (!finite)
    throw_invalid("a weight is not finite, so it has no scale", name, "exclude the tensor, or look at how the model was trained");

  Rounded out;
  const auto shape = sharing.shape(weight.shape);
  if (weight.dtype == DType::f32) {
    out.scale = Tensor::of(DType::f32, shape, scales);
  } else {
    std::vector<std::uint16_t> halves;
    for (const float scale : scales) halves.push_back(weight.dtype == DType::f16 ? c10::Half(scale).x : c10::BFloat16(scale).x);
    out.scale = Tensor::of(weight.dtype, shape, halves);
  }
  if (!grid.symmetric) out.zero = Tensor::own(grid.code_type(), shape, packed(zeros, grid.bits));
  out.codes = Tensor::own(grid.code_type(), weight.shape, packed(codes, grid.bits));
  for (std::size_t s = 0; s < scales.size(); ++s) {
    out.squared_error += errors[s];
    out.squared += squares[s];
  }
  return out;
}

std::optional<std::int64_t> whole_group(std::int64_t width, std::int64_t group) {
  for (std::int64_t size = std::min(width, group); size * 4 >= group && size > 1; --size)
    if (width % size == 0) return size;
  return std::nullopt;
}

}  // namespace espalier
