#include <ATen/ops/reshape.h>
#include <fmt/format.h>

#include "run/op.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;

struct Blocks {
  std::int64_t size;
  bool depth_last;  ///< "DCR": a channel's own number is the innermost part of the deep side's
  explicit Blocks(const RunView& v) : size(v.node.integer("blocksize", 0)) {
    const std::string mode = v.node.text("mode", "DCR");
    if (mode != "DCR" && mode != "CRD") v.fail(fmt::format("mode is \"{}\"", mode));
    depth_last = mode == "DCR";
    if (v.in(0).dim() != 4) v.fail(fmt::format("the input has rank {}, expected 4", v.in(0).dim()));
    if (size < 1 || size > 1 << 20) v.fail(fmt::format("blocksize is {}", size));
  }
};

Results depth_to_space(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const Blocks b(v);
  const std::int64_t n = x.size(0), c = x.size(1) / (b.size * b.size), h = x.size(2), w = x.size(3);
  if (c * b.size * b.size != x.size(1)) v.fail(fmt::format("{} channels do not divide by blocks of {}²", x.size(1), b.size));
  const at::Tensor apart = b.depth_last ? at::reshape(x, {n, b.size, b.size, c, h, w}).permute({0, 3, 4, 1, 5, 2})
                                        : at::reshape(x, {n, c, b.size, b.size, h, w}).permute({0, 1, 4, 2, 5, 3});
  return {at::reshape(apart, {n, c, h * b.size, w * b.size})};
}

Results space_to_depth(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const Blocks b(v);
  const std::int64_t n = x.size(0), c = x.size(1), h = x.size(2) / b.size, w = x.size(3) / b.size;
  if (h * b.size != x.size(2) || w * b.size != x.size(3))
    v.fail(fmt::format("{} by {} does not divide by blocks of {}", x.size(2), x.size(3), b.size));
  const at::Tensor apart = at::reshape(x, {n, c, h, b.size, w, b.size});
  return {at::reshape(b.depth_last ? apart.permute({0, 3, 5, 1, 2, 4}) : apart.permute({0, 1, 3, 5, 2, 4}),
                      {n, c * b.size * b.size, h, w})};
}

const RegisterRun entries[] = {{"", "DepthToSpace", depth_to_space}, {"", "SpaceToDepth", space_to_depth}};

}  // namespace
}  // namespace espalier
