#include <fmt/format.h>

#include <numeric>

#include "run/op.h"

namespace espalier {
namespace {

/// Lengths as attribute (opset 12 and older) or input; else equal parts, the last one shorter where the length does not divide.
std::vector<at::Tensor> split(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const std::int64_t axis = v.axis("axis", 0, x.dim()), length = x.size(axis);
  std::vector<std::int64_t> lengths;
  if (v.node.has("split")) {
    lengths = v.node.integers("split", {});
  } else if (v.has(1)) {
    lengths = v.integers(1);
  } else {
    const std::int64_t parts = v.node.integer("num_outputs", static_cast<std::int64_t>(v.node.outputs.size()));
    if (parts < 1 || parts > static_cast<std::int64_t>(v.node.outputs.size()))
      v.fail(fmt::format("{} parts of an axis of length {}", parts, length));
    const std::int64_t each = (length + parts - 1) / parts;
    lengths.assign(static_cast<std::size_t>(parts), each);
    lengths.back() = length - each * (parts - 1);
  }
  if (lengths.size() != v.node.outputs.size())
    v.fail(fmt::format("{} lengths for {} outputs", lengths.size(), v.node.outputs.size()));
  for (std::int64_t each : lengths)
    if (each < 0 || each > length) v.fail(fmt::format("a part of length {} of an axis of length {}", each, length));
  if (std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0}) != length)
    v.fail(fmt::format("the lengths do not add up to the axis' {}", length));
  std::vector<at::Tensor> parts;
  std::int64_t start = 0;
  for (std::int64_t each : lengths) {
    parts.push_back(x.narrow(axis, start, each));
    start += each;
  }
  return parts;
}

const RegisterRun entry{"", "Split", split};

}  // namespace
}  // namespace espalier
