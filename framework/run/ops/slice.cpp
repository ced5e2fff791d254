#include <ATen/ops/arange.h>
#include <ATen/ops/index_select.h>

#include <algorithm>
#include <numeric>

#include "run/op.h"
#include "run/ops/unsigned.h"

namespace espalier {
namespace {

struct Cut {
  std::vector<std::int64_t> starts, ends, axes, steps;
};

/// Bounds as attributes (opset 9 and older) or as inputs.
Cut cut_of(const RunView& v) {
  Cut cut;
  const bool attributes = v.node.has("starts");
  cut.starts = attributes ? v.node.integers("starts", {}) : v.integers(1);
  cut.ends = attributes ? v.node.integers("ends", {}) : v.integers(2);
  cut.axes.resize(cut.starts.size());
  std::iota(cut.axes.begin(), cut.axes.end(), 0);
  if (attributes) cut.axes = v.node.integers("axes", cut.axes);
  if (!attributes && v.has(3)) cut.axes = v.integers(3);
  cut.steps.assign(cut.starts.size(), 1);
  if (!attributes && v.has(4)) cut.steps = v.integers(4);
  if (cut.ends.size() != cut.starts.size() || cut.axes.size() != cut.starts.size() || cut.steps.size() != cut.starts.size())
    v.fail("starts, ends, axes and steps differ in length");
  cut.axes = v.wrap(cut.axes, v.in(0).dim());
  return cut;
}

std::vector<at::Tensor> slice(const RunView& v) {
  at::Tensor x = v.in(0);
  const Cut cut = cut_of(v);
  for (std::size_t i = 0; i < cut.starts.size(); ++i) {
    const std::int64_t axis = cut.axes[i], length = x.size(axis), step = cut.steps[i];
    if (step == 0) v.fail("a step is zero");
    // Far values ("to the end") are clamped before the length is added, so that nothing overflows.
    const auto from_front = [length](std::int64_t at) {
      return at < 0 ? std::max(at, -length - 1) + length : std::min(at, length);
    };
    const std::int64_t low = step > 0 ? 0 : -1, high = step > 0 ? length : length - 1;
    const std::int64_t start = std::clamp(from_front(cut.starts[i]), std::min<std::int64_t>(0, high), high);
    const std::int64_t end = std::clamp(from_front(cut.ends[i]), low, length);
    if (step > 0) {
      x = x.slice(axis, start, std::max(start, end), std::min(step, std::max<std::int64_t>(length, 1)));
    } else {  // LibTorch has no negative steps
      const at::Tensor indices = start > end && length > 0
                                     ? at::arange(start, end, std::max(step, -length), at::TensorOptions().dtype(at::kLong))
                                     : at::arange(0, at::TensorOptions().dtype(at::kLong));
      x = narrowed(at::index_select(as_signed(x), axis, indices), x.scalar_type());
    }
  }
  return {x};
}

const RegisterRun entry{"", "Slice", slice};

}  // namespace
}  // namespace espalier
