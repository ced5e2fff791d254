#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/matmul.h>
#include <fmt/format.h>

#include <numeric>

#include "run/ops/sampling.h"
#include "run/window.h"

namespace espalier {
namespace {

using Lengths = std::vector<std::int64_t>;

std::int64_t product(const Lengths& lengths) {
  return std::accumulate(lengths.begin(), lengths.end(), std::int64_t{1}, std::multiplies<>());
}

/// first + i · step along axis `axis` of a grid, for all of its points in a row.
at::Tensor coordinate(const Lengths& grid, std::size_t axis, std::int64_t first, std::int64_t step,
                      const at::TensorOptions& options) {
  Lengths shape(grid.size(), 1);
  shape[axis] = grid[axis];
  return (at::arange(grid[axis], options) * step + first).reshape(shape).expand(grid).reshape({-1});
}

/// Samples for every place of the kernel and of the output, [batch · groups of offsets, channels, places · points].
at::Tensor samples(const RunView& v, const at::Tensor& x, const Window& window, std::int64_t places, std::int64_t points) {
  const auto axes = static_cast<std::int64_t>(window.rank());
  const std::int64_t groups = v.node.integer("offset_group", 1), batch = x.size(0);
  if (groups < 1 || x.size(1) % groups != 0) v.fail(fmt::format("offset_group is {} for {} channels", groups, x.size(1)));
  const auto check = [&](const at::Tensor& given, std::int64_t channels, const char* what) {
    Lengths wanted{batch, channels};
    wanted.insert(wanted.end(), window.output.begin(), window.output.end());
    if (given.sizes() != at::IntArrayRef(wanted)) v.fail(fmt::format("the {} do not fit the kernel and the output", what));
  };
  check(v.in(2), groups * places * axes, "offsets");
  const auto options = x.options().requires_grad(false);
  const at::Tensor offsets = v.in(2).reshape({batch, groups, places, axes, points});
  std::vector<at::Tensor> at;
  for (std::size_t i = 0; i < window.rank(); ++i) {
    const at::Tensor base = coordinate(window.kernel, i, 0, window.dilations[i], options).unsqueeze(1) +
                            coordinate(window.output, i, -window.begin[i], window.strides[i], options);
    at.push_back((offsets.select(3, static_cast<std::int64_t>(i)) + base).reshape({batch * groups, places * points}));
  }
  Lengths shape = x.sizes().vec();
  shape[0] = batch * groups;
  shape[1] = x.size(1) / groups;
  const at::Tensor taken = sample(x.reshape(shape), at, {});
  if (!v.has(4)) return taken;
  check(v.in(4), groups * places, "masks");
  return taken * v.in(4).reshape({batch * groups, 1, places * points});
}

std::vector<at::Tensor> deform_conv(const RunView& v) {
  const at::Tensor &x = v.in(0), &weight = v.in(1);
  if (weight.dim() < 3) v.fail(fmt::format("the weights have rank {}, expected 3 to 5", weight.dim()));
  const Window window(v, x, weight.sizes().slice(2).vec());
  const std::int64_t groups = v.node.integer("group", 1), filters = weight.size(0);
  if (groups < 1 || x.size(1) != weight.size(1) * groups || filters % groups != 0 || x.numel() == 0)
    v.fail(fmt::format("{} groups do not divide {} input channels into weights of {} inputs and {} outputs", groups, x.size(1),
                       weight.size(1), filters));
  const std::int64_t places = product(window.kernel), points = product(window.output);
  const at::Tensor columns =
      samples(v, x, window, places, points).reshape({x.size(0), groups, x.size(1) / groups * places, points});
  at::Tensor y = at::matmul(weight.reshape({1, groups, filters / groups, -1}), columns);
  Lengths shape{x.size(0), filters}, each(static_cast<std::size_t>(x.dim()), 1);
  shape.insert(shape.end(), window.output.begin(), window.output.end());
  y = y.reshape(shape);
  each[1] = filters;
  return {v.has(3) ? y + v.in(3).reshape(each) : y};
}

const RegisterRun entry{"", "DeformConv", deform_conv};

}  // namespace
}  // namespace espalier
