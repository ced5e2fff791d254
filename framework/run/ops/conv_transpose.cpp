#include <ATen/TensorOperators.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/convolution.h>
#include <fmt/format.h>

#include <algorithm>

#include "run/op.h"
#include "run/window.h"

namespace espalier {
namespace {

using Lengths = std::vector<std::int64_t>;

/// Along one spatial axis: what the input spreads to, and the part of it that is asked for; it may end beyond, in zeros.
struct Part {
  std::int64_t full, begin, length;
  std::int64_t rest() const { return full - begin - length; }
};

/// `total`: the full length and the output's padding. Half of what is too much goes at the beginning, the odd one there unless
/// SAME_UPPER says otherwise.
Part centred(const RunView& v, std::int64_t full, std::int64_t total, std::int64_t length, bool upper) {
  const std::int64_t excess = total - length;
  if (excess == -1 && !upper) return {full, 0, length};
  if (excess < 0) v.refuse(fmt::format("an output of length {} where {} are made is not supported", length, total));
  return {full, upper ? excess / 2 : excess - excess / 2, length};
}

std::vector<Part> parts(const RunView& v, const at::Tensor& x, const Lengths& kernel, const Lengths& strides,
                        const Lengths& dilations) {
  const std::size_t axes = kernel.size();
  const Lengths extra = spatial(v, "output_padding", axes, 0, 0), pads = spatial(v, "pads", 2 * axes, 0, 0);
  const bool asked = !v.node.integers("output_shape", {}).empty();
  const Lengths lengths = asked ? spatial(v, "output_shape", axes, 1, 1) : Lengths(axes, 0);
  const std::string mode = v.node.text("auto_pad", "NOTSET");
  const bool same = mode == "SAME_UPPER" || mode == "SAME_LOWER";
  if (!same && mode != "NOTSET" && mode != "VALID") v.fail(fmt::format("auto_pad = \"{}\" is unknown", mode));
  std::vector<Part> out;
  for (std::size_t i = 0; i < axes; ++i) {
    const std::int64_t before = x.size(static_cast<std::int64_t>(i) + 2);
    if (before < 1) v.fail("a spatial axis is empty");
    const std::int64_t full = strides[i] * (before - 1) + (kernel[i] - 1) * dilations[i] + 1, total = full + extra[i];
    if (asked || same) {
      out.push_back(centred(v, full, total, asked ? lengths[i] : before * strides[i], mode == "SAME_UPPER"));
      continue;
    }
    const bool padded = mode == "NOTSET";
    out.push_back({full, padded ? pads[i] : 0, total - (padded ? pads[i] + pads[axes + i] : 0)});
    if (out.back().length < 1) v.fail("the padding leaves nothing");
  }
  return out;
}

/// LibTorch takes away as much at the beginning as at the end; what is left over is cut off, or filled with zeros, behind it.
std::vector<at::Tensor> conv_transpose(const RunView& v) {
  const at::Tensor &x = v.in(0), &weight = v.in(1);
  if (x.dim() < 3 || weight.dim() != x.dim())
    v.fail(fmt::format("the input has rank {}, the weights have rank {}: expected the same, 3 to 5", x.dim(), weight.dim()));
  if (x.dim() > 5) v.refuse(fmt::format("{} spatial axes are not supported", x.dim() - 2));
  const std::int64_t groups = v.node.integer("group", 1);
  if (groups < 1 || x.size(1) != weight.size(0) || x.size(1) % groups != 0)
    v.fail(fmt::format("{} groups do not divide {} input channels for weights of {}", groups, x.size(1), weight.size(0)));
  const Lengths kernel = weight.sizes().slice(2).vec();
  const std::size_t axes = kernel.size();
  if (v.node.has("kernel_shape") && spatial(v, "kernel_shape", axes, 1, 1) != kernel)
    v.fail("attribute kernel_shape differs from the weights' shape");
  const Lengths strides = spatial(v, "strides", axes, 1, 1), dilations = spatial(v, "dilations", axes, 1, 1);
  const std::vector<Part> wanted = parts(v, x, kernel, strides, dilations);
  Lengths padding, rests;  // LibTorch's constant_pad_nd counts from the last axis
  bool beyond = false;
  for (const Part& part : wanted) {
    padding.push_back(std::clamp<std::int64_t>(part.rest(), 0, part.begin));
    beyond = beyond || part.rest() < 0;
  }
  for (std::size_t i = axes; i-- > 0;) {
    rests.push_back(padding[i] - wanted[i].begin);
    rests.push_back(padding[i] - wanted[i].rest());
  }
  std::optional<at::Tensor> bias;
  if (v.has(2) && !beyond) bias = v.in(2);
  const Lengths none(axes, 0);
  at::Tensor y = at::convolution(x, weight, bias, strides, padding, dilations, true, none, groups);
  if (std::any_of(rests.begin(), rests.end(), [](std::int64_t r) { return r != 0; })) y = at::constant_pad_nd(y, rests, 0);
  if (!v.has(2) || !beyond) return {y};
  Lengths shape(static_cast<std::size_t>(y.dim()), 1);
  shape[1] = -1;
  return {y + v.in(2).reshape(shape)};
}

const RegisterRun entry{"", "ConvTranspose", conv_transpose};

}  // namespace
}  // namespace espalier
