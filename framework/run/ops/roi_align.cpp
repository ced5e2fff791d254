#include <ATen/TensorOperators.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "run/op.h"

namespace espalier {
namespace {

/// Sampling points along one axis of a region: two neighbours each, with their weights, both 0 for a point beyond the picture.
struct Line {
  at::Tensor low, high, of_low, of_high;
};

/// `each` points in each of `bins` bins of a region that begins at `begin`.
Line line(double begin, double bin, std::int64_t bins, std::int64_t each, std::int64_t length, const at::TensorOptions& options) {
  const std::int64_t count = bins * each;
  const at::Tensor low = at::empty({count}, at::kLong), high = at::empty({count}, at::kLong);
  const at::Tensor shares = at::zeros({2, count}, at::kDouble);
  auto *lows = low.mutable_data_ptr<std::int64_t>(), *highs = high.mutable_data_ptr<std::int64_t>();
  auto* share = shares.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < count; ++i) {
    lows[i] = highs[i] = 0;
    const double inner = (static_cast<double>(i % each) + 0.5) / static_cast<double>(each);
    double place = begin + bin * (static_cast<double>(i / each) + inner);
    if (!(place >= -1 && place <= static_cast<double>(length))) continue;
    place = std::clamp(place, 0.0, static_cast<double>(length - 1));
    lows[i] = std::min(static_cast<std::int64_t>(place), length - 1);
    highs[i] = std::min(lows[i] + 1, length - 1);
    share[count + i] = place - static_cast<double>(lows[i]);
    share[i] = 1 - share[count + i];
  }
  const at::Tensor weights = shares.to(options);
  return {low, high, weights[0], weights[1]};
}

constexpr double most_points = 1 << 24;  // in one region

struct Align {
  std::int64_t height, width, ratio;
  double scale;
  bool half, maximum;

  explicit Align(const RunView& v)
      : height(v.node.integer("output_height", 1)),
        width(v.node.integer("output_width", 1)),
        ratio(v.node.integer("sampling_ratio", 0)),
        scale(v.node.number("spatial_scale", 1)) {
    const bool old = v.opset() < 16;
    const std::string mode = v.node.text("mode", "avg");
    const std::string pixels = v.node.text("coordinate_transformation_mode", old ? "output_half_pixel" : "half_pixel");
    if (mode != "avg" && mode != "max") v.fail(fmt::format("mode = \"{}\" is unknown", mode));
    if (pixels != "half_pixel" && pixels != "output_half_pixel")
      v.fail(fmt::format("coordinate_transformation_mode = \"{}\" is unknown", pixels));
    if (height < 1 || width < 1 || height > 1 << 20 || width > 1 << 20 || ratio < 0)
      v.fail("output_height, output_width or sampling_ratio is not possible");
    half = pixels == "half_pixel";
    maximum = mode == "max";
  }

  /// [C, height, width] of one picture and the corners x1, y1, x2, y2 of a region.
  at::Tensor operator()(const RunView& v, const at::Tensor& picture, const double* corners) const {
    // How many points a bin gets hangs on the last bit: rounded as the type that is computed in.
    const bool wide = picture.scalar_type() == at::kDouble;
    const auto in = [wide](double value) { return wide ? value : static_cast<double>(static_cast<float>(value)); };
    const auto place = [&](int i) { return in(in(corners[i] * scale) - (half ? 0.5 : 0)); };
    const double x1 = place(0), y1 = place(1);
    double across = in(place(2) - x1), down = in(place(3) - y1);
    if (!half) {  // no region is smaller than an element
      across = std::max(across, 1.0);
      down = std::max(down, 1.0);
    }
    const double bin_x = in(across / static_cast<double>(width)), bin_y = in(down / static_cast<double>(height));
    if (!std::isfinite(bin_x) || !std::isfinite(bin_y) || !std::isfinite(x1) || !std::isfinite(y1))
      v.fail("a region is not finite");
    const double each_x = ratio > 0 ? static_cast<double>(ratio) : std::ceil(bin_x);
    const double each_y = ratio > 0 ? static_cast<double>(ratio) : std::ceil(bin_y);
    if (each_x < 1 || each_y < 1) return at::zeros({picture.size(0), height, width}, picture.options());
    if (each_x * each_y * static_cast<double>(height) * static_cast<double>(width) > most_points)
      v.refuse("a region that is sampled at more than 2^24 points is not supported");
    return pooled(picture, line(y1, bin_y, height, static_cast<std::int64_t>(each_y), picture.size(1), picture.options()),
                  line(x1, bin_x, width, static_cast<std::int64_t>(each_x), picture.size(2), picture.options()));
  }

 private:
  at::Tensor pooled(const at::Tensor& picture, const Line& down, const Line& across) const {
    at::Tensor sum;
    for (const bool lower : {false, true}) {
      const at::Tensor rows =
          at::index_select(picture, 1, lower ? down.high : down.low) * (lower ? down.of_high : down.of_low).unsqueeze(1);
      for (const bool right : {false, true}) {
        const at::Tensor corner =
            at::index_select(rows, 2, right ? across.high : across.low) * (right ? across.of_high : across.of_low);
        // ONNX takes the maximum of the four weighted corners, not of their sum.
        sum = !sum.defined() ? corner : maximum ? at::maximum(sum, corner) : sum + corner;
      }
    }
    const at::Tensor bins = sum.reshape({picture.size(0), height, sum.size(1) / height, width, sum.size(2) / width});
    return maximum ? at::amax(bins, {2, 4}) : at::mean(bins, at::IntArrayRef{2, 4});
  }
};

std::vector<at::Tensor> roi_align(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const Align align(v);
  const at::Tensor regions = v.in(1).detach().to(at::kDouble).contiguous();
  const std::vector<std::int64_t> pictures = v.integers(2);
  if (x.dim() != 4 || regions.dim() != 2 || regions.size(1) != 4 || regions.size(0) != static_cast<std::int64_t>(pictures.size()))
    v.fail("regions are [regions, 4], with the number of a picture of a rank-4 input for each");
  if (x.size(2) < 1 || x.size(3) < 1) v.fail("the pictures are empty");
  const auto* corners = regions.const_data_ptr<double>();
  std::vector<at::Tensor> out;
  for (std::size_t i = 0; i < pictures.size(); ++i) {
    if (pictures[i] < 0 || pictures[i] >= x.size(0)) v.fail(fmt::format("there is no picture {}", pictures[i]));
    out.push_back(align(v, x.select(0, pictures[i]), corners + 4 * i));
  }
  if (out.empty()) return {at::zeros({0, x.size(1), align.height, align.width}, x.options())};
  return {at::stack(out)};
}

const RegisterRun entry{"", "RoiAlign", roi_align};

}  // namespace
}  // namespace espalier
