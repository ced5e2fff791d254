#include "run/window.h"

#include <ATen/ops/constant_pad_nd.h>
#include <fmt/format.h>

#include <algorithm>

namespace espalier {
namespace {

constexpr std::int64_t limit = std::int64_t{1} << 31;  // keeps products of lengths far from overflow

std::vector<std::int64_t> positive(const RunView& view, const char* name, std::size_t axes) {
  return spatial(view, name, axes, 1, 1);
}

}  // namespace

std::vector<std::int64_t> spatial(const RunView& view, const char* name, std::size_t axes, std::int64_t fallback,
                                  std::int64_t least) {
  std::vector<std::int64_t> list = view.node.integers(name, std::vector<std::int64_t>(axes, fallback));
  if (list.size() != axes) view.fail(fmt::format("attribute {} has {} entries, {} are needed", name, list.size(), axes));
  for (std::int64_t each : list)
    if (each < least || each > limit) view.fail(fmt::format("attribute {} holds {}", name, each));
  return list;
}

Window::Window(const RunView& view, const at::Tensor& x, std::vector<std::int64_t> given) : kernel(std::move(given)) {
  if (x.dim() < 3) view.fail(fmt::format("the input has rank {}, expected 3 to 5", x.dim()));
  if (x.dim() > 5) view.refuse(fmt::format("{} spatial axes are not supported", x.dim() - 2));
  const auto axes = static_cast<std::size_t>(x.dim() - 2);
  if (kernel.empty()) {
    if (!view.node.has("kernel_shape")) view.fail("attribute kernel_shape is missing");
    kernel = positive(view, "kernel_shape", axes);
  } else if (view.node.has("kernel_shape") && positive(view, "kernel_shape", axes) != kernel) {
    view.fail("attribute kernel_shape differs from the weights' shape");
  }
  if (kernel.size() != axes) view.fail(fmt::format("the kernel has {} axes, the input {}", kernel.size(), axes));
  strides = positive(view, "strides", axes);
  dilations = positive(view, "dilations", axes);
  const std::vector<std::int64_t> pads = spatial(view, "pads", 2 * axes, 0, 0);
  begin.assign(pads.begin(), pads.begin() + static_cast<std::ptrdiff_t>(axes));
  end.assign(pads.begin() + static_cast<std::ptrdiff_t>(axes), pads.end());

  const std::string mode = view.node.text("auto_pad", "NOTSET");
  const bool same = mode == "SAME_UPPER" || mode == "SAME_LOWER";
  if (!same && mode != "NOTSET" && mode != "VALID") view.fail(fmt::format("auto_pad = \"{}\" is unknown", mode));
  const bool ceil = view.node.integer("ceil_mode", 0) != 0;
  for (std::size_t i = 0; i < axes; ++i) {
    const std::int64_t length = x.size(static_cast<std::int64_t>(i) + 2), span = (kernel[i] - 1) * dilations[i] + 1;
    if (mode == "VALID") begin[i] = end[i] = 0;
    if (same) {
      const std::int64_t total =
          std::max<std::int64_t>(((length + strides[i] - 1) / strides[i] - 1) * strides[i] + span - length, 0);
      begin[i] = mode == "SAME_UPPER" ? total / 2 : total - total / 2;
      end[i] = total - begin[i];
    }
    std::int64_t room = length + begin[i] + end[i] - span;
    // With ceil_mode one window may reach beyond a short axis: what lies there is neither summed nor counted.
    if (room < 0 && ceil && room + strides[i] > 0 && dilations[i] == 1) {
      kernel[i] += room;
      room = 0;
    }
    if (room < 0) view.fail(fmt::format("a window of {} does not fit an axis of length {} with its padding", span, length));
    std::int64_t count = (ceil ? room + strides[i] - 1 : room) / strides[i] + 1;
    if (ceil && (count - 1) * strides[i] >= length + begin[i]) --count;
    output.push_back(count);
  }
}

std::vector<std::int64_t> Window::reach(const at::Tensor& x) const {
  std::vector<std::int64_t> out;
  for (std::size_t i = 0; i < rank(); ++i) {
    const std::int64_t span = (kernel[i] - 1) * dilations[i] + 1, last = (output[i] - 1) * strides[i] + span;
    out.push_back(std::max(end[i], last - x.size(static_cast<std::int64_t>(i) + 2) - begin[i]));
  }
  return out;
}

at::Tensor pad_spatial(const at::Tensor& x, const std::vector<std::int64_t>& begin, const std::vector<std::int64_t>& end,
                       double value) {
  std::vector<std::int64_t> pads;  // LibTorch counts from the last axis
  for (std::size_t i = begin.size(); i-- > 0;) {
    pads.push_back(begin[i]);
    pads.push_back(end[i]);
  }
  if (std::all_of(pads.begin(), pads.end(), [](std::int64_t p) { return p == 0; })) return x;
  return at::constant_pad_nd(x, pads, value);
}

}  // namespace espalier
