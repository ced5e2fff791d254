#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/index_add.h>
#include <ATen/ops/reshape.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include "run/op.h"

namespace espalier {
namespace {

using Lengths = std::vector<std::int64_t>;

/// How blocks lie in an image, by spatial axis.
struct Layout {
  Lengths image, block, strides, dilations, pads;
  Lengths whole, steps;  ///< lengths with padding; blocks along an axis

  explicit Layout(const RunView& v) : image(v.integers(1)), block(v.integers(2)) {
    const std::size_t n = image.size();
    strides = v.node.integers("strides", Lengths(n, 1));
    dilations = v.node.integers("dilations", Lengths(n, 1));
    pads = v.node.integers("pads", Lengths(2 * n, 0));
    if (n == 0 || block.size() != n || strides.size() != n || dilations.size() != n || pads.size() != 2 * n)
      v.fail("image, block, strides, dilations and pads differ in length");
    for (std::size_t i = 0; i < n; ++i) {
      constexpr std::int64_t far = 1 << 30;
      for (std::int64_t each : {image[i], block[i], strides[i], dilations[i]})
        if (each < 1 || each > far) v.fail(fmt::format("axis {} has the length, stride or dilation {}", i, each));
      for (std::int64_t pad : {pads[i], pads[n + i]})
        if (pad < 0 || pad > far) v.fail(fmt::format("axis {} has the pad {}", i, pad));
      whole.push_back(image[i] + pads[i] + pads[n + i]);
      const std::int64_t rest = whole[i] - dilations[i] * (block[i] - 1) - 1;
      if (rest < 0) v.fail(fmt::format("the block does not fit into axis {} of the image", i));
      steps.push_back(rest / strides[i] + 1);
    }
  }
  /// Product, checked.
  static std::int64_t count(const RunView& v, const Lengths& lengths) {
    std::int64_t n = 1;
    for (std::int64_t length : lengths)
      if (__builtin_mul_overflow(n, length, &n)) v.fail("the image's size overflows");
    return n;
  }
  /// Row-major place in the padded image of each element of each block: [block…, blocks…].
  at::Tensor places() const {
    const std::size_t n = image.size();
    at::Tensor sum = at::zeros({}, at::kLong);
    for (std::size_t i = 0; i < n; ++i) {
      Lengths inner(2 * n, 1), outer(2 * n, 1);
      inner[i] = block[i];
      outer[n + i] = steps[i];
      const at::Tensor along = (at::arange(block[i], at::kLong) * dilations[i]).reshape(inner) +
                               (at::arange(steps[i], at::kLong) * strides[i]).reshape(outer);
      sum = sum * whole[i] + along;
    }
    return sum;
  }
};

/// What overlaps is added up.
std::vector<at::Tensor> col2im(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const Layout layout(v);
  if (x.dim() != 3) v.fail(fmt::format("the input has rank {}, expected 3", x.dim()));
  const std::int64_t size = Layout::count(v, layout.block), blocks = Layout::count(v, layout.steps);
  if (x.size(1) < size || x.size(1) % size != 0 || x.size(2) != blocks)
    v.fail(fmt::format("[{}, {}] is not made of {} blocks of {} elements", x.size(1), x.size(2), blocks, size));
  const std::int64_t channels = x.size(1) / size, area = Layout::count(v, layout.whole);
  at::Tensor image = at::zeros({x.size(0), channels, area}, x.options());
  image = at::index_add(image, 2, layout.places().reshape({-1}), at::reshape(x, {x.size(0), channels, size * blocks}));
  Lengths shape{x.size(0), channels};
  shape.insert(shape.end(), layout.whole.begin(), layout.whole.end());
  image = image.reshape(shape);
  for (std::size_t i = 0; i < layout.image.size(); ++i)
    image = image.narrow(static_cast<std::int64_t>(i) + 2, layout.pads[i], layout.image[i]);
  return {image};
}

const RegisterRun entry{"", "Col2Im", col2im};

}  // namespace
}  // namespace espalier
