#include <fmt/format.h>

#include "run/op.h"

namespace espalier {
namespace {

/// One number of copies for each axis; before opset 6 one number and its axis.
std::vector<at::Tensor> tile(const RunView& v) {
  const at::Tensor& x = v.in(0);
  std::vector<std::int64_t> copies = v.integers(1);
  if (v.opset() < 6) {
    const std::vector<std::int64_t> axis = v.integers(2);
    if (copies.size() != 1 || axis.size() != 1) v.fail("tiles and axis are no single numbers");
    std::vector<std::int64_t> all(static_cast<std::size_t>(x.dim()), 1);
    all[static_cast<std::size_t>(v.wrap(axis[0], x.dim()))] = copies[0];
    copies = all;
  }
  if (copies.size() != static_cast<std::size_t>(x.dim()))
    v.fail(fmt::format("{} numbers of copies for a tensor of rank {}", copies.size(), x.dim()));
  std::int64_t count = x.element_size();
  for (std::size_t i = 0; i < copies.size(); ++i) {
    if (copies[i] < 0) v.fail(fmt::format("{} copies", copies[i]));
    const std::int64_t length = x.size(static_cast<std::int64_t>(i));
    std::int64_t whole = 0;
    if (__builtin_mul_overflow(length, copies[i], &whole) || (whole > 0 && __builtin_mul_overflow(count, whole, &count)))
      v.fail(fmt::format("{} copies of a tensor of {} elements overflow", copies[i], x.numel()));
  }
  return {x.repeat(copies)};
}

const RegisterRun entry{"", "Tile", tile};

}  // namespace
}  // namespace espalier
